"""What dedup and decontaminate have to do: a pair of blocks is an item, or, by cells, a group of these."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from curation.search.cells_config import MAX_PROBES
from pipelines.rows.groups import num_rows_of
from pipelines.stages.copies.blocks import num_blocks
from pipelines.stages.copies.cell_join import RECALL_SUFFIX
from pipelines.stages.forecast import Sizes, StepForecast

# Bytes of a row: its hashes and ids, or its miniature with what it is compared by.
_HASHES_BYTES, _PIXELS_BYTES = 48, 1024


@dataclass(frozen=True)
class JoinSide:
    """Blocks to be joined with one another, or with those of another side."""

    num_blocks: int
    num_rows: float  # that take part, of all blocks
    block_rows: float  # that take part, of one block
    row_bytes: int  # beside a vector

    @classmethod
    def of(
        cls, sizes: Sizes, takes: Callable[[str], bool], *, share: float, by_pixels: bool = False
    ) -> "JoinSide":
        """Of a share of some pools' rows; of the few that are compared by pixels, blocks are cut by these."""
        parts, block_rows = sizes.parts_of(takes), sizes.config.dedup.block_rows
        num_rows = share * num_rows_of(parts)
        if not by_pixels:
            num = num_blocks(parts, block_rows=block_rows)
            return cls(num, num_rows, min(block_rows, num_rows), _HASHES_BYTES)
        num = num_blocks(parts, block_rows=block_rows / share) if num_rows else 0
        return cls(num, num_rows, min(block_rows, num_rows), _PIXELS_BYTES)


def forecast_pca_hashes(sizes: Sizes) -> Iterator[StepForecast]:
    """The fit, and the hashes of each part, where a rule asks for them."""
    config, dim = sizes.config, sizes.copy_dim
    if config.dedup.pca_radius is None and config.decontaminate.pca_radius is None:
        return
    sample = min(config.dedup.pca_sample_rows, sizes.total)
    yield StepForecast(
        "pca_fit", "dedup", 1, "rows fitted", sample, 2.0 * dim * sample, 8.0 * dim * sample,
        "per row of a sample of fixed size",
    )  # fmt: skip
    held = 10.0 * dim * config.ingest.part_rows
    yield sizes.by_part("pca_hash", "dedup", read=2.0 * dim * sizes.total, held=held)


def forecast_dedup(sizes: Sizes) -> Iterator[StepForecast]:
    """The rows that take part, every kind of edge in use, and the components."""
    rule, takes, n = sizes.config.dedup, sizes.may_enter, sizes.total
    yield sizes.in_one_item("dedup_rows", "dedup", read=48.0 * n, held=120.0 * n)
    every = JoinSide.of(sizes, takes, share=sizes.shares.joined)
    by_vectors = rule.saved_from is not None
    if by_vectors and rule.search == "cells":
        yield from _forecast_cells("dedup_cell_edges", "dedup", sizes, every)
        by_vectors = False
    what = "images: four times for twice as many"
    if by_vectors or rule.phash_radius is not None:
        dim = sizes.copy_dim if by_vectors else 0
        yield _forecast_join("dedup_edges", "dedup", [every], what=what, dim=dim)
    if rule.pca_radius is not None:
        yield _forecast_join("dedup_pca_edges", "dedup", [every], what=what)
    if "pixels" in rule.thresholds:
        share = sizes.shares.joined * sizes.shares.joined_pixels
        yield from _forecast_pixels("dedup", [JoinSide.of(sizes, takes, share=share, by_pixels=True)])
    components = sizes.in_one_item("dedup_components", "dedup", read=60.0 * n, held=100.0 * n)
    yield replace(components, units=every.num_rows)


def forecast_decontaminate(sizes: Sizes) -> Iterator[StepForecast]:
    """The rows that are described, every kind of edge to the holdout images, and what leaks."""
    config, rule, n, shares = sizes.config, sizes.config.decontaminate, sizes.total, sizes.shares
    stage, what = "decontaminate", "an image and an evaluation image"
    asked = (config.is_decontaminated, lambda pool: config.pools[pool].role == "holdout")
    yield sizes.in_one_item("decontaminate_rows", stage, read=8.0 * n, held=16.0 * n)
    sides = [JoinSide.of(sizes, takes, share=shares.decoded) for takes in asked]
    dim = sizes.copy_dim if rule.cosine_threshold is not None else 0
    yield _forecast_join("decontaminate_edges", stage, sides, what=what, dim=dim)
    if rule.pca_radius is not None:
        yield _forecast_join("decontaminate_pca_edges", stage, sides, what=what)
    if "pixels" in rule.thresholds:
        few = zip(asked, (shares.searched_pixels, shares.holdout_pixels), strict=True)
        yield from _forecast_pixels(
            stage, [JoinSide.of(sizes, takes, share=share, by_pixels=True) for takes, share in few]
        )
    yield sizes.in_one_item("decontaminate_leaks", stage, read=48.0 * n, held=120.0 * n)


def _forecast_pixels(stage: str, sides: Sequence[JoinSide]) -> Iterator[StepForecast]:
    """The pictures of poor hash, few of all; none where a side has none of them."""
    if all(side.num_blocks for side in sides):
        yield _forecast_join(f"{stage}_pixel_edges", stage, sides, what="images of poor hash")


def _forecast_join(
    name: str, stage: str, sides: Sequence[JoinSide], *, what: str, dim: int = 0
) -> StepForecast:
    """A join of all pairs of one side, or of each of one with each of the other, block by block.

    Each block is read once for every other. Vectors of `dim` numbers are held in other forms besides.
    """
    left, right = sides[0], sides[-1]
    num_items, pairs = left.num_blocks * right.num_blocks, left.num_rows * right.num_rows
    rows_read = right.num_blocks * left.num_rows + left.num_blocks * right.num_rows
    if len(sides) == 1:
        num_items, pairs = math.comb(left.num_blocks + 1, 2), pairs / 2
        rows_read = left.num_rows * (left.num_blocks + 1)
    read = rows_read * (left.row_bytes + 2 * dim)
    held = (left.block_rows + right.block_rows) * (left.row_bytes + 7 * dim)
    grows = f"per pair of {what}, by pair of blocks"
    return StepForecast(name, stage, num_items, "pairs", pairs, read, held, grows)


def _forecast_cells(name: str, stage: str, sizes: Sizes, side: JoinSide) -> Iterator[StepForecast]:
    search, vector = sizes.config.dedup.cells, 2.0 * sizes.copy_dim
    rows, blocks = side.num_rows, side.num_blocks
    cells = search.cells_of(round(rows))
    probes = min(search.num_probes or sizes.shares.num_probes or MAX_PROBES, cells)
    trained = min(search.sample_rows_per_cell * cells, rows)
    held = side.block_rows * vector * 4
    yield StepForecast(
        f"{name}_cells", stage, 1, "row × cell", trained * cells, trained * vector, trained * vector * 4,
        "per row of a sample and cell, in one item; both grow as √images",
    )  # fmt: skip
    yield StepForecast(
        f"{name}_truth", stage, blocks, "pairs", min(search.recall_rows, rows) * rows, rows * vector, held,
        "per pair of a sampled row and any row, by block",
    )  # fmt: skip
    yield StepForecast(
        f"{name}{RECALL_SUFFIX}", stage, 1, "rows sampled", search.recall_rows, 0, 0, "a fixed sample"
    )
    yield StepForecast(
        f"{name}_assign", stage, blocks, "row × cell", rows * cells, rows * vector, held,
        "per row and cell, by block",
    )  # fmt: skip
    yield StepForecast(
        name, stage, search.groups_of(round(rows)), "pairs", rows * probes * rows / cells,
        rows * probes * vector, 2000.0 * search.group_rows,
        "per pair of images that meet in a cell: 2.8 times for twice as many, by group of cells",
    )  # fmt: skip
