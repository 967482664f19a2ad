"""Cells: the parts of space around trained centroids, in which near vectors meet.

A vector lives in its nearest cell, its home, and visits its `num_probes` nearest ones. Nearness is the inner
product of int8 codes, a whole number: every machine, cut and thread count finds the same cells. Only which
pairs meet depends on it, never their score, so its rounding (0.01 of a cosine) costs nothing.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float16, Int32, Int64, UInt16
from numpy import ndarray

from curation.errors import ConfigError
from curation.search.cells_config import MAX_CELLS
from curation.search.codes import encode
from curation.search.product import fastest_dtype, multiply

_TILE_ROWS = 1024
_TILE_PRODUCTS = 1 << 20  # 4 MB in int32: still in the cache when the largest are looked for
_SPAN = 8  # products of which only the largest is looked at before the probes of a row are chosen


def nearest_cells(
    vectors: Float16[ndarray, "m d"], centroids: Float16[ndarray, "c d"], *, num_probes: int
) -> UInt16[ndarray, "m num_probes"]:
    """Find the nearest cells of every vector, the nearest (its home) first, equals by number.

    Args:
        vectors: fp16 (m, d), unit rows.
        centroids: fp16 (c, d), of `curation.cluster.train_cells.train_cells`.
        num_probes: cells a vector, 1 to c.

    Returns:
        uint16 (m, num_probes).

    Raises:
        ConfigError: more probes than cells.
    """
    if not 1 <= num_probes <= len(centroids):
        raise ConfigError(
            "A vector cannot visit so many cells", got=num_probes, expected=f"1 to {len(centroids)}"
        )
    cells = np.empty((len(vectors), num_probes), np.uint16)
    for rows, nearness in cell_products(vectors, centroids):
        if num_probes == 1:
            cells[rows, 0] = nearness.argmax(axis=1)  # the first of equals
        else:
            cells[rows] = _best(nearness, num_probes)
    return cells


def cell_products(
    vectors: Float16[ndarray, "m d"], centroids: Float16[ndarray, "c d"]
) -> Iterator[tuple[slice, ndarray]]:
    """The nearness of tiles of vectors to every cell: whole numbers, comparable within a row.

    Yields:
        rows, and int32 (or fp32, fp64 without VNNI: the same numbers) (t, c), valid until the next tile.
    """
    held, products = torch.int8, torch.int32
    if fastest_dtype() != "int8":  # sums of whole numbers below 2^24 are exact in fp32 too
        held = products = torch.float32 if 127 * 127 * vectors.shape[1] < 1 << 24 else torch.float64
    columns = encode(centroids, dtype="int8", one_scale=True).values.to(held)
    num_rows = min(_TILE_ROWS, max(_TILE_PRODUCTS // max(len(centroids), 1), 64), len(vectors))
    out = torch.empty(num_rows * len(centroids), dtype=products)
    for start in range(0, len(vectors), max(num_rows, 1)):
        rows = slice(start, min(start + num_rows, len(vectors)))
        codes = encode(vectors[rows], dtype="int8").values.to(held)
        yield rows, multiply(codes, columns, out=out).numpy()


def _best(nearness: np.ndarray, num_probes: int) -> UInt16[ndarray, "t num_probes"]:
    """The largest of each row, largest first, equals by number.

    The p-th largest of the maxima of spans has p products at or above it, so the p largest lie in spans whose
    maximum reaches it. Looking at these alone costs a third of a partition of all.
    """
    num_rows, num_cells = nearness.shape
    width = num_cells // _SPAN
    cell = np.arange(num_cells)
    if width > 2 * num_probes:
        spans = nearness[:, : width * _SPAN].reshape(num_rows, _SPAN, width)  # every width-th cell
        highest = spans.max(axis=1)
        floor = np.partition(highest, width - num_probes, axis=1)[:, width - num_probes]
        row, span = np.divmod(np.flatnonzero(highest >= floor[:, None]), width)
        place = np.arange(len(row)) - np.searchsorted(row, np.arange(num_rows))[row]
        keys = np.full((num_rows, int(place.max()) + 1, _SPAN), np.iinfo(np.int64).max)
        keys[row, place] = _key(spans[row, :, span], cell[: width * _SPAN].reshape(_SPAN, width)[:, span].T)
        rest = slice(width * _SPAN, None)
        keys = np.concatenate([keys.reshape(num_rows, -1), _key(nearness[:, rest], cell[rest])], axis=1)
    else:
        keys = _key(nearness, cell)
    if keys.shape[1] > num_probes:
        keys = np.partition(keys, num_probes - 1, axis=1)[:, :num_probes]
    return (np.sort(keys, axis=1) & (MAX_CELLS - 1)).astype(np.uint16)


def _key(nearness: np.ndarray, cell: np.ndarray) -> Int64[ndarray, "..."]:
    """One number to sort by: larger nearness first, then smaller cell."""
    return np.asarray(-nearness.astype(np.int64) * MAX_CELLS + cell)


def group_cells(sizes: Int64[ndarray, " c"], *, num_groups: int) -> Int64[ndarray, " starts"]:
    """Cut the cells into runs of about as many rows each: the units of work.

    Args:
        sizes: int64 (c,), rows of each cell, or of a sample of them.
        num_groups: runs asked for; fewer where cells are large.

    Returns:
        int64 (g + 1,), the first cell of every run, and c at last.
    """
    ends = np.cumsum(sizes)
    targets = np.arange(1, num_groups) * ends[-1] / num_groups
    cuts = np.searchsorted(ends, targets) + 1
    return np.unique(np.r_[0, np.minimum(cuts, len(sizes)), len(sizes)]).astype(np.int64)


def needed_probes(
    vectors: Float16[ndarray, "m d"], centroids: Float16[ndarray, "c d"], *, cell: UInt16[ndarray, " m"]
) -> Int32[ndarray, " m"]:
    """How many probes a vector needs to visit a cell: the cell's rank among its nearest, from 1.

    Args:
        vectors: fp16 (m, d), unit rows.
        centroids: fp16 (c, d).
        cell: uint16 (m,), the cell to be visited by each vector.
    """
    ranks = np.empty(len(vectors), np.int32)
    number = np.arange(len(centroids))
    for rows, nearness in cell_products(vectors, centroids):
        wanted = cell[rows].astype(np.int64)[:, None]
        reach = np.take_along_axis(nearness, wanted, axis=1)
        before = (nearness > reach) | ((nearness == reach) & (number < wanted))
        ranks[rows] = before.sum(axis=1) + 1
    return ranks
