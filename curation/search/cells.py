"""Cells: the parts of space around trained centroids, in which near vectors meet.

A vector lives in its nearest cell, its home, and visits its `num_probes` nearest ones. Nearness is the inner
product of int8 codes, a whole number: every machine, cut and thread count finds the same cells. Only which
pairs meet depends on it, never their score, so its rounding (0.01 of a cosine) costs nothing.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float16, Float64, Int32, Int64, UInt16
from numpy import ndarray

from curation.errors import ConfigError
from curation.search.cells_config import MAX_CELLS
from curation.search.product import buffer_for, fastest_dtype, multiply

_TILE_ROWS = 1024
_TILE_PRODUCTS = 1 << 20  # 4 MB in int32: still in the cache when the largest are looked for
_SPAN = 8  # products of which only the largest is looked at before the probes of a row are chosen
_ITERATIONS = 5  # of Lloyd: with twice as many, the probes that 99 % of pairs need do not change


def train_cells(
    sample: Float16[ndarray, "s d"], num_cells: int, *, seed: int
) -> Float16[ndarray, "num_cells d"]:
    """Train centroids by spherical k-means, and number them so that near cells get near numbers.

    Args:
        sample: fp16 (s, d), unit vectors, no zeros; 64 a cell are plenty.
        num_cells: cells, at most `MAX_CELLS`.
        seed: of the first centroids, and of those that replace empty ones.

    Returns:
        fp16 (num_cells, d) of unit length. The same for a sample and seed on every machine: sums are exact.

    Raises:
        ConfigError: more cells than vectors, or than can be numbered.
    """
    if not 1 <= num_cells <= min(len(sample), MAX_CELLS):
        raise ConfigError(
            "The number of cells does not fit the vectors to train on",
            got=f"{num_cells} cells for {len(sample)} vectors",
            expected=f"1 to {min(len(sample), MAX_CELLS)}",
            remedy="Lower num_cells, or leave it null to have it follow from the number of rows",
        )
    centroids = _lloyd(sample, num_cells, rng=np.random.default_rng(seed))
    if num_cells < 4:
        return centroids
    # Cells of one coarser cell come one after another, so that a run of cells has few visitors from outside.
    coarse = _lloyd(centroids, round(num_cells**0.5), rng=np.random.default_rng(seed))
    return centroids[np.argsort(nearest_cells(centroids, coarse, num_probes=1)[:, 0], kind="stable")]


def nearest_cells(
    vectors: Float16[ndarray, "m d"], centroids: Float16[ndarray, "c d"], *, num_probes: int
) -> UInt16[ndarray, "m num_probes"]:
    """Find the nearest cells of every vector, the nearest (its home) first, equals by number.

    Args:
        vectors: fp16 (m, d), unit rows.
        centroids: fp16 (c, d), of `train_cells`.
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
    columns = _codes(centroids, one_scale=True)
    num_rows = min(_TILE_ROWS, max(_TILE_PRODUCTS // max(len(centroids), 1), 64), len(vectors))
    in_int8 = fastest_dtype() == "int8"
    out = buffer_for("int8" if in_int8 else "fp32", num_products=num_rows * len(centroids))
    for start in range(0, len(vectors), max(num_rows, 1)):
        rows = slice(start, min(start + num_rows, len(vectors)))
        codes = _codes(vectors[rows], one_scale=False)
        if in_int8:
            yield rows, multiply(codes, columns, out=out).numpy()
        else:
            # Sums of whole numbers below 2^24 are exact in fp32 too.
            wide = torch.float32 if 127 * 127 * vectors.shape[1] < 1 << 24 else torch.float64
            yield rows, codes.to(wide).numpy() @ columns.to(wide).numpy().T


def _codes(vectors: np.ndarray, *, one_scale: bool) -> torch.Tensor:
    """Vectors in int8; a scale a row does not change which cell is nearer to it."""
    num_rows, dim = vectors.shape
    exact = torch.from_numpy(np.array(vectors)).float()
    largest = exact.abs().amax(dim=1, keepdim=True)
    if one_scale and num_rows:
        largest = largest.amax().expand(num_rows, 1)
    codes = exact.mul_(127 / largest.clamp(min=2.0**-24)).round_().to(torch.int8)
    # At least two dimensions: torch 2.14's int8 product of width 1 is wrong.
    return codes if dim > 1 else torch.nn.functional.pad(codes, (0, 1))


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
    return -nearness.astype(np.int64) * MAX_CELLS + cell


def _lloyd(sample: np.ndarray, num_cells: int, *, rng: np.random.Generator) -> Float16[ndarray, "c d"]:
    centroids = sample[np.sort(rng.choice(len(sample), num_cells, replace=False))]
    for _ in range(_ITERATIONS):
        home = nearest_cells(sample, centroids, num_probes=1)[:, 0].astype(np.int64)
        counts = np.bincount(home, minlength=num_cells)
        # fp16 numbers are whole multiples of 2^-24: their fp64 sums are exact in any order.
        sums = np.zeros((num_cells, sample.shape[1]))
        order = np.argsort(home, kind="stable")
        for start in range(0, len(order), _TILE_ROWS):
            run = order[start : start + _TILE_ROWS]
            firsts = np.flatnonzero(np.diff(home[run], prepend=-1))
            sums[home[run[firsts]]] += np.add.reduceat(sample[run].astype(np.float64), firsts, axis=0)
        centroids = _unit(sums, instead=centroids)
        empty = np.flatnonzero(counts == 0)
        if len(empty):  # a vector out of the largest cells each
            largest = np.argsort(-counts, kind="stable")[: len(empty)]
            ends = np.cumsum(counts)[largest]
            size = np.maximum(counts[largest], 1)
            chosen = ends - size + (rng.random(len(largest)) * size).astype(np.int64)
            centroids[empty[: len(largest)]] = sample[order[np.minimum(chosen, len(order) - 1)]]
    return centroids


def _unit(sums: Float64[ndarray, "c d"], *, instead: Float16[ndarray, "c d"]) -> Float16[ndarray, "c d"]:
    norms = np.sqrt((sums * sums).sum(axis=1, keepdims=True))
    return np.where(norms > 0, sums / np.where(norms > 0, norms, 1.0), instead).astype(np.float16)


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
