"""dedup: exact copies are collapsed, what is left is joined into edges, and components keep one row each.

Images that cannot enter the dataset take no part: those of holdouts, and of curated pools that only search.
They would displace images that can.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations_with_replacement
from typing import Annotated

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64

from curation import storage
from curation.dedup.components import collapse_equal, survivor_order
from curation.dedup.config import DedupConfig
from pipelines.config.run_config import RunConfig
from pipelines.engine.digest import Without
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, Facts, FileRef, Item, Step, Work
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
from pipelines.stages.copies.blocks import Block, JoinedRows, write_joined
from pipelines.stages.copies.cell_join import CellJoin, cell_join
from pipelines.stages.copies.components import decide, files_compared
from pipelines.stages.copies.join import JoinRule, join_by_kinds
from pipelines.stages.copies.saved_edges import EdgeFile

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
    rows_step = Step("dedup_rows", 3, RowsSettings(aside), _load_rows, "dedup")
    rows = runner.run_one(rows_step, Item(DedupRowsTask(tuple(parts))))
    rule = config.dedup
    edges = _join(runner, config, JoinedRows(parts, rows, runner.run_dir, rule.block_rows))

    step = Step("dedup_components", 3, ComponentsSettings(rule), _load_components, "dedup")
    # Of files that no kind in use compares, none is hashed either.
    compared = tuple(part.only("verdicts", *files_compared(rule.thresholds)) for part in parts)
    firsts = rows.file(runner.run_dir, FIRSTS)
    found = runner.run_one(step, Item(ComponentsTask(compared, firsts, edges)))
    copies, health, hubs = (found.file(runner.run_dir, name) for name in CopiesFile)
    return Copies(copies, health, hubs, firsts, edges)


def _join(runner: Runner, config: RunConfig, rows: JoinedRows) -> tuple[EdgeFile, ...]:
    """Every kind of edge in use, among the images that may enter the dataset."""
    rule = config.dedup

    def takes(pool: str) -> bool:
        return config.pools[pool].may_enter_dataset

    def pairs(files: Sequence[str], *, only_pixels: bool = False) -> list[tuple[Block, Block]]:
        return list(combinations_with_replacement(rows.blocks(takes, files, only_pixels=only_pixels), 2))

    cosine_threshold, limit = rule.saved_from, rule.max_edges_per_row
    threads = config.executor.threads
    edges: tuple[EdgeFile, ...] = ()
    if rule.search == "cells" and cosine_threshold is not None:
        cells = CellJoin("dedup", rule.cells, cosine_threshold, limit, seed=config.seed, threads=threads)
        edges += cell_join(runner, cells, rows.blocks(takes))
        cosine_threshold = None
    join_rule = JoinRule(
        rule.phash_radius,
        cosine_threshold,
        rule.pca_radius,
        pixels="pixels" in rule.thresholds,
        max_edges_per_row=limit,
        backend=rule.backend,
        threads=threads,
    )
    return edges + join_by_kinds(runner, "dedup", join_rule, pairs)


def usable(parts: Sequence[Part]) -> Bool[np.ndarray, " n"]:
    """Rows that were decoded and judged good."""
    return np.asarray(is_null(parts, "described", "reason") & is_null(parts, "verdicts", "reason"))


def survivor_rank(parts: Sequence[Part]) -> Int64[np.ndarray, " n"]:
    """Every row's claim to survive among its copies."""
    width = numbers(column(parts, "described", "width"), null=0).astype(np.int64)
    height = numbers(column(parts, "described", "height"), null=0)
    return survivor_order(
        is_curated=roles(parts, "curated"),
        area_px=width * height,
        num_bytes=numbers(column(parts, "described", "num_bytes"), null=0),
        image_id=sha256_words(parts)[:, :2],
    )


def _load_rows(settings: RowsSettings) -> Work[DedupRowsTask]:
    def work(attempt: Attempt[DedupRowsTask]) -> Facts:
        parts = attempt.task.parts
        candidates = np.flatnonzero(usable(parts) & ~in_pools(parts, settings.aside))
        # The first of equal bytes, whichever of them survives: rows that come later leave it where it is,
        # and the blocks of a pool that grows as they were.
        order = np.arange(len(candidates))
        first = candidates[collapse_equal(sha256_words(parts)[candidates], order)]
        joined = candidates[first == candidates]
        storage.write_vectors(attempt.out / FIRSTS, np.stack([candidates, first], axis=1))
        facts = write_joined(attempt.out, parts, joined)
        return {**facts, "num_rows": len(candidates), "num_joined": len(joined)}

    return work


def _load_components(settings: ComponentsSettings) -> Work[ComponentsTask]:
    def work(attempt: Attempt[ComponentsTask]) -> Facts:
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
