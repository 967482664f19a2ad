"""decontaminate: every described image that may enter, survivor or not, against every holdout image.

Images of curated pools that only search cannot leak anything, and are left alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Int64

from curation import storage
from curation.dedup.config import DedupConfig
from curation.dedup.decontaminate import DecontaminateConfig, exact_leaks, leaks
from curation.dedup.edges import Edges
from curation.schema import LEAKS
from pipelines.config.run_config import RunConfig
from pipelines.engine.digest import Without
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, Facts, FileRef, Item, NoSettings, Step, Work
from pipelines.rows.parts import Part, PlacesOf, in_pools, is_null, read, read_array, roles, sha256_words
from pipelines.rows.ranks import id_rank
from pipelines.stages.copies.blocks import Block, JoinedFile, JoinedRows, write_joined
from pipelines.stages.copies.components import Comparer, component_labels, deciding_edges, files_compared
from pipelines.stages.copies.dedup import Copies, read_copies, survivor_rank, usable
from pipelines.stages.copies.join import JoinRule, join_by_kinds
from pipelines.stages.copies.saved_edges import EdgeFile, read_deciding

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
    rows_step = Step("decontaminate_rows", 3, NoSettings(), _load_rows, "decontaminate")
    rows = runner.run_one(rows_step, Item(DescribedTask(tuple(parts))))
    edges = _join(runner, config, JoinedRows(parts, rows, runner.run_dir, config.dedup.block_rows))

    searched = tuple(sorted(name for name in config.pools if config.is_decontaminated(name)))
    held_by = _holds_components(config)
    settings = LeaksSettings(config.decontaminate, searched, held_by)
    step = Step("decontaminate_leaks", 4, settings, _load_leaks, "decontaminate")
    # Of files that no kind in use compares, none is hashed either.
    compared = files_compared(held_by.thresholds if held_by else ())
    components = DedupEdges(copies.firsts, copies.edges) if held_by else copies.copies
    described = rows.file(runner.run_dir, JoinedFile.ROWS)
    task = LeaksTask(tuple(part.only(*compared) for part in parts), described, edges, components)
    return Leaks(runner.run_one(step, Item(task)).file(runner.run_dir, LEAKS_FILE), edges)


def _holds_components(config: RunConfig) -> DedupConfig | None:
    """The rule of components that have a threshold of their own."""
    if (threshold := config.decontaminate.component_threshold) is None:
        return None
    own = {"cosine_threshold": threshold, "edge_floor": None, "cut_chains": False}
    return config.dedup.model_copy(update=own)


def _join(runner: Runner, config: RunConfig, rows: JoinedRows) -> tuple[EdgeFile, ...]:
    """Every described image against every holdout image, by every kind of edge in use."""

    def is_holdout(pool: str) -> bool:
        return config.pools[pool].role == "holdout"

    def pairs(files: Sequence[str], *, only_pixels: bool = False) -> list[tuple[Block, Block]]:
        searched = rows.blocks(config.is_decontaminated, files, only_pixels=only_pixels)
        return list(product(searched, rows.blocks(is_holdout, files, only_pixels=only_pixels)))

    rule = JoinRule(
        config.decontaminate.phash_radius,
        config.decontaminate.cosine_threshold,
        config.decontaminate.pca_radius,
        pixels="pixels" in config.decontaminate.thresholds,
        every_left=True,
        backend=config.dedup.backend,
        threads=config.executor.threads,
    )
    return join_by_kinds(runner, "decontaminate", rule, pairs)


def _load_rows(_: NoSettings) -> Work[DescribedTask]:
    def work(attempt: Attempt[DescribedTask]) -> Facts:
        parts = attempt.task.parts
        rows = np.flatnonzero(is_null(parts, "described", "reason"))
        return {"num_rows": len(rows), **write_joined(attempt.out, parts, rows)}

    return work


def _load_leaks(settings: LeaksSettings) -> Work[LeaksTask]:
    rule = settings.rule

    def work(attempt: Attempt[LeaksTask]) -> Facts:
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
) -> Edges:
    """Equal bytes, then the edges that were searched for."""
    rows = np.asarray(read_array(task.rows))
    rows = rows[takes_part[rows]]
    is_holdout = roles(task.parts, "holdout")[rows]
    exact = exact_leaks(sha256_words(task.parts)[rows], is_holdout=is_holdout, rank=rank[rows])
    exact = Edges(rows[exact.a], rows[exact.b], exact.score, exact.kind)
    return Edges.joined([exact, *(read_deciding(file, rule.thresholds) for file in task.edges)])


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
    edges = deciding_edges(firsts, found.edges, num_rows=num_rows, rule=held_by)
    rank = survivor_rank(parts)
    return component_labels(edges, Comparer(parts, held_by), rank=rank, rule=held_by)[0]


def survivors(parts: Sequence[Part], copies: FileRef, leaks: FileRef) -> Bool[np.ndarray, " n"]:
    """Rows of curated and uncurated pools that no stage up to decontaminate has dropped.

    A copy of a leaking image is gone too, even when it does not reach the leak's own threshold.

    Args:
        parts: with `described` and `verdicts`.
        copies, leaks: the tables of dedup and of decontaminate.
    """
    alive: np.ndarray = usable(parts) & ~roles(parts, "holdout")
    table = read_copies(copies)
    alive[table["row"].to_numpy()[table["reason"].is_valid().to_numpy()]] = False
    alive[read(leaks)["row"].to_numpy()] = False
    return alive
