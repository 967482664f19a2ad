"""decontaminate: every described image that may enter, survivor or not, against every holdout image.

Images of curated pools that only search cannot leak anything, and are left alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Int64

from curation import storage
from curation.dedup.decontaminate import DecontaminateConfig, HoldoutEdges, exact_leaks, leaks
from curation.dedup.edges import Edges
from curation.dedup.pairs import DedupConfig
from curation.schema import LEAKS
from pipelines.config.run_config import RunConfig
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, FileRef, Item, Receipt, Step, Work
from pipelines.rows.parts import Part, in_pools, is_null, read_array, roles, sha256_words
from pipelines.rows.ranks import id_rank
from pipelines.stages.copies.components import Comparer, EveryEdge, component_labels
from pipelines.stages.copies.dedup import Copies, read_copies, survivor_rank
from pipelines.stages.copies.join import Block, EdgeFile, JoinRule, join, make_blocks, row_digests
from pipelines.stages.copies.pixel_blocks import pixel_blocks, write_pixel_rows
from pipelines.stages.copies.saved_edges import read_edges


@dataclass(frozen=True)
class Leaks:
    """What leaks: `leaks` (schema.LEAKS), and the edges to the holdout images."""

    leaks: FileRef
    edges: tuple[EdgeFile, ...]


def decontaminate(runner: Runner, config: RunConfig, parts: Sequence[Part], copies: Copies) -> Leaks:
    """Find the images that leak an evaluation image, and name it."""
    rule = config.decontaminate
    inputs = tuple(part.digest("described") for part in parts)
    rows_step = Step("decontaminate_rows", 2, {}, _load_rows, "task", "decontaminate")
    rows = runner.run_one(rows_step, Item(inputs, {"parts": tuple(parts)}))
    described = rows.file(runner.run_dir, "described.npy")
    edges = _join(runner, config, parts, rows=described, digests=rows.facts["digests"])
    edges += _pixel_join(runner, config, parts, rows=rows)

    searched = sorted(name for name in config.pools if config.is_decontaminated(name))
    settings = {**rule.model_dump(mode="json"), "searched": searched}
    makes_components: tuple[FileRef, ...] = (copies.copies,)
    held_by: DedupConfig | None = None
    if rule.component_threshold is not None:
        own = {"cosine_threshold": rule.component_threshold, "edge_floor": None, "cut_chains": False}
        held_by = config.dedup.model_copy(update=own)
        settings |= {"thresholds": held_by.thresholds, "limit": held_by.max_edges_per_row}
        makes_components = (copies.firsts, *(edge_file.file for edge_file in copies.edges))
    load = partial(_load_leaks, rule, held_by, searched)
    step = Step("decontaminate_leaks", 4, settings, load, "task", "decontaminate")
    payload = {"parts": tuple(parts), "edges": edges, "rows": described, "copies": copies}
    files = (*makes_components, *(edge_file.file for edge_file in edges))
    receipt = runner.run_one(step, Item((*inputs, rows.digest, *(f.sha256 for f in files)), payload))
    return Leaks(receipt.file(runner.run_dir, "leaks.parquet"), edges)


def _join(
    runner: Runner, config: RunConfig, parts: Sequence[Part], *, rows: FileRef, digests: Sequence[str]
) -> tuple[EdgeFile, ...]:
    """Every described image against every holdout image, by every kind of edge in use."""
    rule = config.decontaminate

    def pairs(*files: str) -> list[tuple[Block, Block]]:
        sides = []
        for takes in (config.is_decontaminated, lambda pool: config.pools[pool].role == "holdout"):
            mine = [(p, digest) for p, digest in zip(parts, digests, strict=True) if takes(p.pool)]
            of_mine = [digest for _, digest in mine]
            size = config.dedup.block_rows
            sides.append(make_blocks([part for part, _ in mine], rows, of_mine, block_rows=size, files=files))
        return list(product(sides[0], sides[1]))

    join_rule = JoinRule(
        rule.phash_radius,
        rule.cosine_threshold,
        every_left=True,
        backend=config.dedup.backend,
        threads=config.describe.embed.threads,
    )
    edges = join(runner, "decontaminate_edges", "decontaminate", pairs(), join_rule)
    if rule.pca_radius is not None:
        pca_rule = JoinRule(pca_radius=rule.pca_radius, every_left=True)
        edges += join(runner, "decontaminate_pca_edges", "decontaminate", pairs("pca_hashes"), pca_rule)
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


def _load_rows() -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        parts: tuple[Part, ...] = attempt.payload["parts"]
        rows = np.flatnonzero(is_null(parts, "described", "reason"))
        storage.write_vectors(attempt.out / "described.npy", rows)
        facts = {"digests": row_digests(parts, rows), **write_pixel_rows(attempt.out, parts, rows)}
        return facts | {"num_rows": len(rows)}

    return work


def _load_leaks(rule: DecontaminateConfig, held_by: DedupConfig | None, searched: Sequence[str]) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        parts: tuple[Part, ...] = attempt.payload["parts"]
        if not any(part.role == "holdout" for part in parts):
            storage.write_table(attempt.out / "leaks.parquet", LEAKS.empty_table())
            return {"num_leaks": 0}
        rows = np.asarray(read_array(attempt.payload["rows"]))
        is_searched = in_pools(parts, searched)
        rows = rows[is_searched[rows] | roles(parts, "holdout")[rows]]
        rank = id_rank(parts)
        exact = exact_leaks(
            sha256_words(parts)[rows], is_holdout=roles(parts, "holdout")[rows], rank=rank[rows]
        )
        edges = Edges.joined([read_edges(file, rule.thresholds) for file in attempt.payload["edges"]])
        every = HoldoutEdges(
            np.concatenate([rows[exact.row], edges.a]),
            np.concatenate([rows[exact.holdout], edges.b]),
            np.concatenate([exact.score, edges.score]),
            np.concatenate([exact.kind, edges.kind]),
        )
        labels = None
        if rule.by == "component":
            labels = _components(attempt.payload["copies"], held_by, parts)
        found = leaks(every, rank=rank, labels=labels, by=rule.by)
        found = found.filter(is_searched[found["row"].to_numpy()])  # a component reaches across pools
        storage.write_table(attempt.out / "leaks.parquet", found)
        return {"num_leaks": found.num_rows}

    return work


def _components(
    copies: Copies, held_by: DedupConfig | None, parts: Sequence[Part]
) -> Int64[np.ndarray, " n"]:
    """A row of every row's component that is the same for all of it: of dedup's, or of those by a rule."""
    num_rows = parts[-1].offset + parts[-1].num_rows
    if held_by is None:
        labels = np.arange(num_rows)
        table = read_copies(copies)
        labels[table["row"].to_numpy()] = table["representative"].to_numpy()
        return labels
    firsts = np.asarray(read_array(copies.firsts))
    edges = EveryEdge.of(firsts, copies.edges, num_rows=num_rows, rule=held_by)
    rank = survivor_rank(parts)
    return component_labels(edges, Comparer(parts, held_by), rank=rank, rule=held_by)[0]
