"""dedup: exact copies are collapsed, what is left is joined into edges, and components keep one row each.

Images that cannot enter the dataset take no part: those of holdouts, and of curated pools that only search.
They would displace images that can.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64

from curation import storage
from curation.dedup.pairs import DedupConfig, collapse_equal, survivor_order
from pipelines.config.run_config import RunConfig
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, FileRef, Item, Receipt, Step, Work
from pipelines.rows.parts import (
    Part,
    as_numpy,
    column,
    in_pools,
    is_null,
    read,
    read_array,
    roles,
    sha256_words,
)
from pipelines.stages.copies.cell_join import cell_join
from pipelines.stages.copies.components import decide
from pipelines.stages.copies.join import Block, EdgeFile, JoinRule, join, make_blocks, row_digests
from pipelines.stages.copies.pixel_blocks import pixel_blocks, write_pixel_rows


@dataclass(frozen=True)
class Copies:
    """What dedup found: `copies`, `health` and `hubs` (schema.COPIES, HEALTH, HUBS), and the saved edges.

    firsts: int64 (n, 2), every usable row, and the row with the same bytes that stood for it in the join.
    """

    copies: FileRef
    health: FileRef
    hubs: FileRef
    firsts: FileRef
    edges: tuple[EdgeFile, ...]


def dedup(runner: Runner, config: RunConfig, parts: Sequence[Part]) -> Copies:
    """Find the copies among the usable images of all curated and uncurated pools."""
    rule = config.dedup
    inputs = tuple(part.digest("described", "verdicts") for part in parts)
    aside = frozenset(name for name, pool in config.pools.items() if not pool.may_enter_dataset)
    rows_step = Step("dedup_rows", 3, {"aside": sorted(aside)}, partial(_load_rows, aside), "task", "dedup")
    rows = runner.run_one(rows_step, Item(inputs, {"parts": tuple(parts)}))
    joined, digests = rows.file(runner.run_dir, "joined.npy"), rows.facts["digests"]
    edges = _join(runner, config, parts, rows=joined, digests=digests)
    edges += _pixel_join(runner, config, parts, rows=rows)

    in_edges = {"edge_floor", "backend", "block_rows", "pca_sample_rows"}  # what the edges hold already
    settings = rule.model_dump(mode="json", exclude=in_edges)
    step = Step("dedup_components", 3, settings, partial(_load_components, rule), "task", "dedup")
    firsts = rows.file(runner.run_dir, "firsts.npy")
    payload = {"parts": tuple(parts), "edges": edges, "firsts": firsts}
    copies = runner.run_one(step, Item((*inputs, rows.digest, *(e.file.sha256 for e in edges)), payload))

    def file(name: str) -> FileRef:
        return copies.file(runner.run_dir, name)

    return Copies(file("copies.parquet"), file("health.parquet"), file("hubs.parquet"), firsts, edges)


def _join(
    runner: Runner, config: RunConfig, parts: Sequence[Part], *, rows: FileRef, digests: Sequence[str]
) -> tuple[EdgeFile, ...]:
    """Every kind of edge in use. The PCA hash has a step of its own: a new fit leaves the other edges."""
    rule = config.dedup
    searched = [
        (part, digest)
        for part, digest in zip(parts, digests, strict=True)
        if config.pools[part.pool].may_enter_dataset
    ]

    def blocks(*files: str) -> list[Block]:
        mine, of_mine = [part for part, _ in searched], [d for _, d in searched]
        return make_blocks(mine, rows, of_mine, block_rows=rule.block_rows, files=files)

    def pairs(*files: str) -> list[tuple[Block, Block]]:
        return list(combinations_with_replacement(blocks(*files), 2))

    join_rule = JoinRule(
        rule.phash_radius,
        rule.saved_from,
        max_edges_per_row=rule.max_edges_per_row,
        backend=rule.backend,
        threads=config.describe.embed.threads,
    )
    by_cells = rule.search == "cells" and rule.saved_from is not None
    edges: tuple[EdgeFile, ...] = ()
    if by_cells:
        edges += cell_join(
            runner, "dedup_cell_edges", "dedup", blocks(), join_rule, search=rule.cells, seed=config.seed
        )
        join_rule = replace(join_rule, cosine_from=None)
    if join_rule.phash_radius is not None or join_rule.cosine_from is not None:
        edges += join(runner, "dedup_edges", "dedup", pairs(), join_rule)
    if rule.pca_radius is not None:
        pca_rule = JoinRule(pca_radius=rule.pca_radius, max_edges_per_row=rule.max_edges_per_row)
        edges += join(runner, "dedup_pca_edges", "dedup", pairs("pca_hashes"), pca_rule)
    return edges


def _pixel_join(
    runner: Runner, config: RunConfig, parts: Sequence[Part], *, rows: Receipt
) -> tuple[EdgeFile, ...]:
    """The pictures of poor hash, by their pixels."""
    if "pixels" not in config.dedup.thresholds:
        return ()
    blocks = pixel_blocks(
        rows,
        runner.run_dir,
        parts,
        takes=lambda pool: config.pools[pool].may_enter_dataset,
        block_rows=config.dedup.block_rows,
    )
    rule = JoinRule(pixels=True, max_edges_per_row=config.dedup.max_edges_per_row)
    pairs = list(combinations_with_replacement(blocks, 2))
    return join(runner, "dedup_pixel_edges", "dedup", pairs, rule) if pairs else ()


def usable(parts: Sequence[Part]) -> Bool[np.ndarray, " n"]:
    """Rows that were decoded and judged good."""
    return is_null(parts, "described", "reason") & is_null(parts, "verdicts", "reason")


def id_words(parts: Sequence[Part]) -> np.ndarray:
    """Image ids as two big-endian words."""
    return sha256_words(parts)[:, :2]


def survivor_rank(parts: Sequence[Part]) -> Int64[np.ndarray, " n"]:
    """Every row's claim to survive among its copies."""
    width = as_numpy(column(parts, "described", "width"), null=0).astype(np.int64)
    height = as_numpy(column(parts, "described", "height"), null=0)
    return survivor_order(
        is_curated=roles(parts, "curated"),
        area_px=width * height,
        num_bytes=as_numpy(column(parts, "described", "num_bytes"), null=0),
        image_id=id_words(parts),
    )


def _load_rows(aside: frozenset[str]) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        parts: tuple[Part, ...] = attempt.payload["parts"]
        candidates = np.flatnonzero(usable(parts) & ~in_pools(parts, aside))
        # The first of equal bytes, whichever of them survives: rows that come later leave it where it is,
        # and the blocks of a pool that grows as they were.
        order = np.arange(len(candidates))
        first = candidates[collapse_equal(sha256_words(parts)[candidates], order)]
        joined = candidates[first == candidates]
        storage.write_vectors(attempt.out / "joined.npy", joined)
        storage.write_vectors(attempt.out / "firsts.npy", np.stack([candidates, first], axis=1))
        facts = {"digests": row_digests(parts, joined), **write_pixel_rows(attempt.out, parts, joined)}
        return facts | {"num_rows": len(candidates), "num_joined": len(joined)}

    return work


def _load_components(rule: DedupConfig) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        parts: tuple[Part, ...] = attempt.payload["parts"]
        firsts = np.asarray(read_array(attempt.payload["firsts"]))
        found = decide(parts, firsts, attempt.payload["edges"], rank=survivor_rank(parts), rule=rule)
        storage.write_table(attempt.out / "copies.parquet", found.copies)
        storage.write_table(attempt.out / "health.parquet", found.health)
        storage.write_table(attempt.out / "hubs.parquet", found.hubs)
        return {
            "num_components": found.health.num_rows,
            "num_rows": parts[-1].offset + parts[-1].num_rows,
            "num_alarms": int(found.health["alarm"].to_numpy().sum()),
            "num_cut": found.num_cut,
            "num_hubs": found.hubs.num_rows,
            "num_dropped": found.num_dropped,
        }

    return work


def read_copies(copies: Copies) -> pa.Table:
    """Every row of a component of two or more: `schema.COPIES`."""
    return read(copies.copies)
