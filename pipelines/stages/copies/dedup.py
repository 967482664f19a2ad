"""dedup: exact copies are collapsed, what is left is joined into edges, and components keep one row each.

Images that cannot enter the dataset take no part: those of holdouts, and of curated pools that only search.
They would displace images that can.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations_with_replacement
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64

from curation import storage
from curation.dedup.config import DedupConfig
from curation.dedup.equal_codes import collapse_equal
from curation.dedup.survivor_order import survivor_order
from pipelines.config.run_config import RunConfig
from pipelines.engine.digest import Without
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, FileRef, Item, Receipt, Step, Work
from pipelines.rows.arrow_columns import numbers
from pipelines.rows.parts import (
    Part,
    PlacesOf,
    column,
    in_pools,
    is_null,
    read,
    read_array,
    roles,
    sha256_words,
)
from pipelines.stages.copies.blocks import (
    HASHES_AND_VECTORS,
    Block,
    joined_parts,
    make_blocks,
    row_digests,
)
from pipelines.stages.copies.cell_join import CellJoin, cell_join
from pipelines.stages.copies.components import decide, files_compared
from pipelines.stages.copies.edge_files import EdgeFile
from pipelines.stages.copies.join import join
from pipelines.stages.copies.join_rule import JoinRule
from pipelines.stages.copies.pixel_blocks import pixel_blocks, write_pixel_rows


class DedupRowsFile(StrEnum):
    """What is put out of the rows that take part."""

    JOINED = "joined.npy"
    FIRSTS = "firsts.npy"


class CopiesFile(StrEnum):
    """What is put out of the components."""

    COPIES = "copies.parquet"
    HEALTH = "health.parquet"
    HUBS = "hubs.parquet"


@dataclass(frozen=True)
class RowsSettings:
    """The pools that take no part."""

    aside: frozenset[str]


@dataclass(frozen=True)
class DedupRowsTask:
    """Which images of the run are usable, and their bytes' hashes."""

    parts: Annotated[tuple[Part, ...], PlacesOf("described", "verdicts")]


@dataclass(frozen=True)
class ComponentsSettings:
    """The thresholds."""

    rule: Annotated[
        DedupConfig,
        Without(("edge_floor", "backend", "block_rows", "pca_sample_rows"), "the edges hold them already"),
    ]


@dataclass(frozen=True)
class ComponentsTask:
    """The saved edges, and what members of a component are compared by."""

    parts: Annotated[tuple[Part, ...], PlacesOf("described", "verdicts", "copy_vectors", "pca_hashes")]
    firsts: FileRef
    edges: tuple[EdgeFile, ...]


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
    aside = frozenset(name for name, pool in config.pools.items() if not pool.may_enter_dataset)
    rows_step = Step("dedup_rows", 3, RowsSettings(aside), _load_rows, "task", "dedup")
    rows = runner.run_one(rows_step, Item(DedupRowsTask(tuple(parts))))
    edges = _join(runner, config, parts, rows=rows) + _pixel_join(runner, config, parts, rows=rows)

    rule = config.dedup
    step = Step("dedup_components", 3, ComponentsSettings(rule), _load_components, "task", "dedup")
    # Of files that no kind in use compares, none is hashed either.
    compared = tuple(part.only("verdicts", *files_compared(rule.thresholds)) for part in parts)
    firsts = rows.file(runner.run_dir, DedupRowsFile.FIRSTS)
    found = runner.run_one(step, Item(ComponentsTask(compared, firsts, edges)))

    def file(name: CopiesFile) -> FileRef:
        return found.file(runner.run_dir, name)

    return Copies(file(CopiesFile.COPIES), file(CopiesFile.HEALTH), file(CopiesFile.HUBS), firsts, edges)


def _join(runner: Runner, config: RunConfig, parts: Sequence[Part], *, rows: Receipt) -> tuple[EdgeFile, ...]:
    """Every kind of edge in use. The PCA hash has a step of its own: a new fit leaves the other edges."""
    rule = config.dedup
    searched = joined_parts(
        parts, rows.facts["digests"], takes=lambda pool: config.pools[pool].may_enter_dataset
    )
    joined = rows.file(runner.run_dir, DedupRowsFile.JOINED)

    def blocks(files: Sequence[str] = HASHES_AND_VECTORS) -> list[Block]:
        return make_blocks(searched, joined, block_rows=rule.block_rows, files=files)

    join_rule = JoinRule(
        rule.phash_radius,
        rule.saved_from,
        max_edges_per_row=rule.max_edges_per_row,
        backend=rule.backend,
        threads=config.executor.threads,
    )
    by_cells = rule.search == "cells" and rule.saved_from is not None
    edges: tuple[EdgeFile, ...] = ()
    if by_cells:
        cells = CellJoin("dedup_cell_edges", "dedup", join_rule, rule.cells, config.seed)
        edges += cell_join(runner, cells, blocks())
        join_rule = replace(join_rule, cosine_from=None)
    if join_rule.phash_radius is not None or join_rule.cosine_from is not None:
        pairs = list(combinations_with_replacement(blocks(), 2))
        edges += join(runner, "dedup_edges", "dedup", pairs, join_rule)
    if rule.pca_radius is not None:
        pca_rule = JoinRule(pca_radius=rule.pca_radius, max_edges_per_row=rule.max_edges_per_row)
        pairs = list(combinations_with_replacement(blocks(["pca_hashes"]), 2))
        edges += join(runner, "dedup_pca_edges", "dedup", pairs, pca_rule)
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
    width = numbers(column(parts, "described", "width"), null=0).astype(np.int64)
    height = numbers(column(parts, "described", "height"), null=0)
    return survivor_order(
        is_curated=roles(parts, "curated"),
        area_px=width * height,
        num_bytes=numbers(column(parts, "described", "num_bytes"), null=0),
        image_id=id_words(parts),
    )


def _load_rows(settings: RowsSettings) -> Work[DedupRowsTask]:
    def work(attempt: Attempt[DedupRowsTask]) -> dict[str, Any]:
        parts = attempt.task.parts
        candidates = np.flatnonzero(usable(parts) & ~in_pools(parts, settings.aside))
        # The first of equal bytes, whichever of them survives: rows that come later leave it where it is,
        # and the blocks of a pool that grows as they were.
        order = np.arange(len(candidates))
        first = candidates[collapse_equal(sha256_words(parts)[candidates], order)]
        joined = candidates[first == candidates]
        storage.write_vectors(attempt.out / DedupRowsFile.JOINED, joined)
        storage.write_vectors(attempt.out / DedupRowsFile.FIRSTS, np.stack([candidates, first], axis=1))
        facts = {"digests": row_digests(parts, joined), **write_pixel_rows(attempt.out, parts, joined)}
        return facts | {"num_rows": len(candidates), "num_joined": len(joined)}

    return work


def _load_components(settings: ComponentsSettings) -> Work[ComponentsTask]:
    def work(attempt: Attempt[ComponentsTask]) -> dict[str, Any]:
        task, parts = attempt.task, attempt.task.parts
        firsts = np.asarray(read_array(task.firsts))
        found = decide(parts, firsts, task.edges, rank=survivor_rank(parts), rule=settings.rule)
        storage.write_table(attempt.out / CopiesFile.COPIES, found.copies)
        storage.write_table(attempt.out / CopiesFile.HEALTH, found.health)
        storage.write_table(attempt.out / CopiesFile.HUBS, found.hubs)
        return {
            "num_components": found.health.num_rows,
            "num_rows": parts[-1].offset + parts[-1].num_rows,
            "num_alarms": int(found.health["alarm"].to_numpy().sum()),
            "num_cut": found.num_cut,
            "num_hubs": found.hubs.num_rows,
            "num_dropped": found.num_dropped,
        }

    return work


def read_copies(copies: FileRef) -> pa.Table:
    """Every row of a component of two or more: `schema.COPIES`."""
    return read(copies)
