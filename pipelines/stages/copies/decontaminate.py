"""decontaminate: every described image that may enter, survivor or not, against every holdout image.

Images of curated pools that only search cannot leak anything, and are left alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any

import numpy as np
from jaxtyping import Bool, Int64

from curation import storage
from curation.dedup.config import DedupConfig
from curation.dedup.decontaminate import DecontaminateConfig, HoldoutEdges, exact_leaks, leaks
from curation.dedup.edges import Edges
from curation.schema import LEAKS
from pipelines.config.run_config import RunConfig
from pipelines.engine.digest import Without
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, FileRef, Item, NoSettings, Receipt, Step, Work
from pipelines.rows.parts import Part, PlacesOf, in_pools, is_null, read_array, roles, sha256_words
from pipelines.rows.ranks import id_rank
from pipelines.stages.copies.blocks import (
    HASHES_AND_VECTORS,
    Block,
    joined_parts,
    make_blocks,
    row_digests,
)
from pipelines.stages.copies.components import Comparer, EveryEdge, component_labels, files_compared
from pipelines.stages.copies.dedup import Copies, read_copies, survivor_rank
from pipelines.stages.copies.edge_files import EdgeFile
from pipelines.stages.copies.join import join
from pipelines.stages.copies.join_rule import JoinRule
from pipelines.stages.copies.pixel_blocks import pixel_blocks, write_pixel_rows
from pipelines.stages.copies.saved_edges import read_edges

DESCRIBED_ROWS = "described.npy"
LEAKS_FILE = "leaks.parquet"


@dataclass(frozen=True)
class DescribedTask:
    """Which images of the run are described."""

    parts: Annotated[tuple[Part, ...], PlacesOf("described")]


@dataclass(frozen=True)
class LeaksSettings:
    """The rule, and which pools are searched.

    held_by: what makes components where their threshold is not dedup's.
    """

    rule: DecontaminateConfig
    searched: tuple[str, ...]
    held_by: Annotated[
        DedupConfig | None,
        Without(
            ("pca_sample_rows", "alarm_below", "search", "cells", "backend", "block_rows"),
            "the edges hold them already, and no chain is cut that would be alarming",
        ),
    ]


@dataclass(frozen=True)
class DedupEdges:
    """The edges of dedup, equal bytes and others."""

    firsts: FileRef
    edges: tuple[EdgeFile, ...]


@dataclass(frozen=True)
class LeaksTask:
    """The edges to holdout images, and what components are told from."""

    parts: Annotated[tuple[Part, ...], PlacesOf("described", "copy_vectors", "pca_hashes")]
    rows: FileRef  # those described
    edges: tuple[EdgeFile, ...]
    components: FileRef | DedupEdges  # dedup's, or edges that make others


@dataclass(frozen=True)
class Leaks:
    """What leaks: `leaks` (schema.LEAKS), and the edges to the holdout images."""

    leaks: FileRef
    edges: tuple[EdgeFile, ...]


def decontaminate(runner: Runner, config: RunConfig, parts: Sequence[Part], copies: Copies) -> Leaks:
    """Find the images that leak an evaluation image, and name it."""
    rows_step = Step("decontaminate_rows", 2, NoSettings(), _load_rows, "task", "decontaminate")
    rows = runner.run_one(rows_step, Item(DescribedTask(tuple(parts))))
    edges = _join(runner, config, parts, rows=rows) + _pixel_join(runner, config, parts, rows=rows)

    searched = tuple(sorted(name for name in config.pools if config.is_decontaminated(name)))
    held_by = _holds_components(config)
    settings = LeaksSettings(config.decontaminate, searched, held_by)
    step = Step("decontaminate_leaks", 4, settings, _load_leaks, "task", "decontaminate")
    # Of files that no kind in use compares, none is hashed either.
    read = files_compared(held_by.thresholds if held_by else ())
    components = DedupEdges(copies.firsts, copies.edges) if held_by else copies.copies
    described = rows.file(runner.run_dir, DESCRIBED_ROWS)
    task = LeaksTask(tuple(part.only(*read) for part in parts), described, edges, components)
    return Leaks(runner.run_one(step, Item(task)).file(runner.run_dir, LEAKS_FILE), edges)


def _holds_components(config: RunConfig) -> DedupConfig | None:
    """The rule of components that have a threshold of their own."""
    if (threshold := config.decontaminate.component_threshold) is None:
        return None
    own = {"cosine_threshold": threshold, "edge_floor": None, "cut_chains": False}
    return config.dedup.model_copy(update=own)


def _join(runner: Runner, config: RunConfig, parts: Sequence[Part], *, rows: Receipt) -> tuple[EdgeFile, ...]:
    """Every described image against every holdout image, by every kind of edge in use."""
    rule = config.decontaminate
    described = rows.file(runner.run_dir, DESCRIBED_ROWS)

    def pairs(files: Sequence[str] = HASHES_AND_VECTORS) -> list[tuple[Block, Block]]:
        searched, holdout = (
            make_blocks(
                joined_parts(parts, rows.facts["digests"], takes=takes),
                described,
                block_rows=config.dedup.block_rows,
                files=files,
            )
            for takes in (config.is_decontaminated, lambda pool: config.pools[pool].role == "holdout")
        )
        return list(product(searched, holdout))

    join_rule = JoinRule(
        rule.phash_radius,
        rule.cosine_threshold,
        every_left=True,
        backend=config.dedup.backend,
        threads=config.executor.threads,
    )
    edges = join(runner, "decontaminate_edges", "decontaminate", pairs(), join_rule)
    if rule.pca_radius is not None:
        pca_rule = JoinRule(pca_radius=rule.pca_radius, every_left=True)
        by_pca = pairs(("described", "pca_hashes"))  # which has the ids: the smallest stands for equal hashes
        edges += join(runner, "decontaminate_pca_edges", "decontaminate", by_pca, pca_rule)
    return edges


def _pixel_join(
    runner: Runner, config: RunConfig, parts: Sequence[Part], *, rows: Receipt
) -> tuple[EdgeFile, ...]:
    """The pictures of poor hash, by their pixels."""
    if "pixels" not in config.decontaminate.thresholds:
        return ()
    searched, holdout = [
        pixel_blocks(rows, runner.run_dir, parts, takes=takes, block_rows=config.dedup.block_rows)
        for takes in (config.is_decontaminated, lambda pool: config.pools[pool].role == "holdout")
    ]
    pairs = list(product(searched, holdout))
    rule = JoinRule(pixels=True, every_left=True)
    return join(runner, "decontaminate_pixel_edges", "decontaminate", pairs, rule) if pairs else ()


def _load_rows(_: NoSettings) -> Work[DescribedTask]:
    def work(attempt: Attempt[DescribedTask]) -> dict[str, Any]:
        parts = attempt.task.parts
        rows = np.flatnonzero(is_null(parts, "described", "reason"))
        storage.write_vectors(attempt.out / DESCRIBED_ROWS, rows)
        facts = {"digests": row_digests(parts, rows), **write_pixel_rows(attempt.out, parts, rows)}
        return facts | {"num_rows": len(rows)}

    return work


def _load_leaks(settings: LeaksSettings) -> Work[LeaksTask]:
    rule = settings.rule

    def work(attempt: Attempt[LeaksTask]) -> dict[str, Any]:
        task, parts = attempt.task, attempt.task.parts
        if not any(part.role == "holdout" for part in parts):
            storage.write_table(attempt.out / LEAKS_FILE, LEAKS.empty_table())
            return {"num_leaks": 0}
        is_searched, rank = in_pools(parts, settings.searched), id_rank(parts)
        every = _every_edge(task, is_searched | roles(parts, "holdout"), rank=rank, rule=rule)
        labels = _components(task, settings.held_by) if rule.by == "component" else None
        found = leaks(every, rank=rank, labels=labels, by=rule.by)
        found = found.filter(is_searched[found["row"].to_numpy()])  # a component reaches across pools
        storage.write_table(attempt.out / LEAKS_FILE, found)
        return {"num_leaks": found.num_rows}

    return work


def _every_edge(
    task: LeaksTask,
    takes_part: Bool[np.ndarray, " n"],
    *,
    rank: Int64[np.ndarray, " n"],
    rule: DecontaminateConfig,
) -> HoldoutEdges:
    """Equal bytes, then the edges that were searched for."""
    rows = np.asarray(read_array(task.rows))
    rows = rows[takes_part[rows]]
    is_holdout = roles(task.parts, "holdout")[rows]
    exact = exact_leaks(sha256_words(task.parts)[rows], is_holdout=is_holdout, rank=rank[rows])
    edges = Edges.joined([read_edges(file, rule.thresholds) for file in task.edges])
    return HoldoutEdges(
        np.concatenate([rows[exact.row], edges.a]),
        np.concatenate([rows[exact.holdout], edges.b]),
        np.concatenate([exact.score, edges.score]),
        np.concatenate([exact.kind, edges.kind]),
    )


def _components(task: LeaksTask, held_by: DedupConfig | None) -> Int64[np.ndarray, " n"]:
    """A row of every row's component that is the same for all of it: of dedup's, or of those by a rule."""
    parts, found = task.parts, task.components
    num_rows = parts[-1].offset + parts[-1].num_rows
    if isinstance(found, FileRef):
        labels = np.arange(num_rows)
        table = read_copies(found)
        labels[table["row"].to_numpy()] = table["representative"].to_numpy()
        return labels
    assert held_by is not None, "edges make components by a rule"
    firsts = np.asarray(read_array(found.firsts))
    edges = EveryEdge.of(firsts, found.edges, num_rows=num_rows, rule=held_by)
    rank = survivor_rank(parts)
    return component_labels(edges, Comparer(parts, held_by), rank=rank, rule=held_by)[0]
