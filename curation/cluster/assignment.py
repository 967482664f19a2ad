"""Which centroid each vector is nearest to: a cheap product proposes, fp32 narrows down, fp64 decides.

The answer for a row is the centroid of the largest fp64 inner product, the lowest of equals, and nothing but
the row and the centroids enters into it. Three sieves lead there, each with a bound on its own error:

1. A product in int8 (in bf16 or fp32 where the CPU has no VNNI). Centroids are taken from their mean first,
   since what all of them share orders nothing and would only widen the bound on the product's error
   (`curation.search.codes`). The best centroid is among those whose product lies within twice that bound of
   the row's largest: for most, one.
2. Those few pairs in fp32, off by d·2^-24 at most.
3. What is left within twice of that, in fp64.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float16, Float32, Float64, Int32, Int64

from curation.cluster.blocks import BLOCK_ROWS
from curation.runs import run_starts
from curation.search.backend import Device
from curation.search.codes import Codes, encode, error_bound
from curation.search.product import (
    ProposeDtype,
    buffer_for,
    fastest_dtype,
    multiply,
    multiply_fp32,
    pair_products,
    round_down,
)

TILE_CENTROIDS = 2048  # with 2048 rows 16 MB of products: read three times, so they should stay in a cache
MAX_NORM = 1.01  # of a unit vector that fp16 has rounded


def exact_products(
    x: Float16[np.ndarray, "#b d"], c: Float32[np.ndarray, "#b d"]
) -> Float64[np.ndarray, "b"]:
    """Row by row fp64 inner products, added in NumPy's fixed pairwise order."""
    return np.asarray((x.astype(np.float64) * c).sum(axis=1))


@dataclass(frozen=True)
class Search:
    """Centroids, made ready to be searched; make one with `search_for`."""

    centroids: Float32[np.ndarray, "k d"]
    codes: Codes  # of the centroids less their origin, with one scale
    dtype: ProposeDtype

    def window(self, rows: Codes, *, held: torch.dtype) -> Float64[np.ndarray, "b"]:
        """How far below the largest of a row's products, held in some dtype, the nearest's may lie."""
        # fp32 rounds what is left of a centroid without the origin.
        lost = 2.0**-23 * self.codes.norm.max() * rows.norm
        return np.asarray(2 * (error_bound(rows, self.codes, held=held) + lost))


def search_for(
    centroids: Float32[np.ndarray, "k d"],
    *,
    origin: Float32[np.ndarray, "d"] | None = None,
    dtype: ProposeDtype | None = None,
    device: Device = "cpu",
) -> Search:
    """Make centroids ready to be searched.

    Args:
        centroids: unit length.
        origin: taken off every centroid before it is coded; None: their mean.
        dtype: arithmetic of the proposals; None: `fastest_dtype`. No result depends on it.
        device: what proposes.
    """
    own = np.ascontiguousarray(centroids)
    dtype = dtype or fastest_dtype(device)
    moved = own - (mean_of(own) if origin is None else origin)
    return Search(own, encode(moved, dtype=dtype, one_scale=True, device=device), dtype)


def mean_of(centroids: Float32[np.ndarray, "k d"]) -> Float32[np.ndarray, "d"]:
    """What all centroids share: it orders nothing, and widens the bounds of their codes."""
    return np.asarray(centroids.mean(axis=0, dtype=np.float64), np.float32)


@dataclass(frozen=True)
class Assigned:
    """Rows and their nearest centroids, and what is known of the products without having read the rows.

    Args:
        cluster: of the nearest centroid.
        lead: by how much its product is larger than any other's, at least; 0 where codes could not tell.
        low: what its product, less the origin's, is at least.
    """

    cluster: Int32[np.ndarray, "b"]
    lead: Float32[np.ndarray, "b"]
    low: Float32[np.ndarray, "b"]


class Desk:
    """One thread's search, with a buffer of its own: fresh pages cost as much as the work on them."""

    def __init__(self, search: Search) -> None:
        self._search = search
        width = min(TILE_CENTROIDS, len(search.centroids))
        self._products = buffer_for(search.dtype, num_products=BLOCK_ROWS * width)

    def encode(self, vectors: Float16[np.ndarray, "b d"]) -> Codes:
        """Put rows of unit length into the arithmetic of the proposals; no centroid enters into it."""
        return encode(vectors, dtype=self._search.dtype)

    def assign(
        self,
        vectors: Float16[np.ndarray, "m d"],
        codes: Codes,
        rows: Int64[np.ndarray, "b"] | None = None,
    ) -> Assigned:
        """Find the nearest centroid of every row.

        Args:
            vectors: unit length; read only where codes cannot tell.
            codes: of at most `BLOCK_ROWS` of them.
            rows: of which; None: of all.
        """
        lead, low, row, cluster = self._propose(codes)
        if len(row) > len(low):
            cluster = settle(
                row,
                cluster,
                vectors_at=lambda unsure: vectors[unsure if rows is None else rows[unsure]],
                centroids=self._search.centroids,
            )
        return Assigned(cluster.astype(np.int32), lead, low)

    def ceiling(self, codes: Codes) -> Float32[np.ndarray, "b"]:
        """What the product of each row with any centroid, less the origin, is at most."""
        unit, window = self._units(codes)
        tops = [table.max(axis=1).astype(np.float64) for _, table in self._tables(codes)]
        return np.asarray((np.max(tops, axis=0) + window / 2) * unit, np.float32)

    def _propose(
        self, codes: Codes
    ) -> tuple[
        Float32[np.ndarray, "b"], Float32[np.ndarray, "b"], Int64[np.ndarray, "p"], Int64[np.ndarray, "p"]
    ]:
        """Leads, lows, and every row with the clusters that may be its best, by row and then by cluster."""
        unit, window = self._units(codes)
        every, num_rows = np.arange(len(codes)), len(codes)
        best, second = np.full((2, num_rows), -np.inf)
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for first, table in self._tables(codes):
            column = table.argmax(axis=1)  # NumPy's is vectorised; torch's costs four times as much
            top = table[every, column].astype(np.float64)
            table[every, column] = -(2**31) if table.dtype == np.int32 else -np.inf
            next_top = table.max(axis=1).astype(np.float64)
            second = np.maximum(np.maximum(second, next_top), np.minimum(best, top))
            best = np.maximum(best, top)
            found.append((every, column + first, top))
            crowded = np.flatnonzero(next_top >= best - window)
            if len(crowded):
                # A copy of the crowded rows pays while they are few; the others have nothing above the floor.
                near = crowded if 2 * len(crowded) < num_rows else every
                rest = table if len(near) == num_rows else table[near]
                flat = np.flatnonzero(rest >= self._floor(best[near] - window[near]))
                row = flat // rest.shape[1]
                other = flat - row * rest.shape[1]
                found.append((near[row], other + first, rest[row, other].astype(np.float64)))
        lead = np.maximum((best - second - window) * unit, 0).astype(np.float32)
        low = ((best - window / 2) * unit).astype(np.float32)
        if len(found) == 1:
            return lead, low, found[0][0], found[0][1]
        row, cluster, score = (np.concatenate(pieces) for pieces in zip(*found, strict=True))
        near = np.flatnonzero(score >= (best - window)[row])
        near = near[np.argsort(row[near] * len(self._search.centroids) + cluster[near])]
        return lead, low, row[near], cluster[near]

    def _units(self, codes: Codes) -> tuple[Float64[np.ndarray, "b"], Float64[np.ndarray, "b"]]:
        """What a product of 1 stands for, by row, and the window in such units, rounded up."""
        unit = codes.scale * self._search.codes.scale[0]
        window = self._search.window(codes, held=self._products.dtype) / unit
        return unit, np.ceil(window) if self._search.dtype == "int8" else window

    def _tables(self, codes: Codes) -> Iterator[tuple[int, np.ndarray]]:
        """The first centroid of every tile, and the products with it, int32 or fp32, good until the next."""
        for first in range(0, len(self._search.centroids), TILE_CENTROIDS):
            tile = self._search.codes.values[first : first + TILE_CENTROIDS]
            if tile.dtype == torch.float32:
                yield first, multiply_fp32(codes.values, tile).numpy()
                continue
            table = multiply(codes.values, tile, out=self._products)
            yield first, (table.float() if table.is_floating_point() else table).numpy()

    def _floor(self, floor: Float64[np.ndarray, "c"]) -> np.ndarray:
        """By row, to compare tables with in their own type; rounded down, so that nothing is lost."""
        held = torch.int32 if self._search.dtype == "int8" else torch.float32
        return round_down(floor, dtype=held).numpy()[:, None]


def settle(
    row: Int64[np.ndarray, "p"],
    cluster: Int64[np.ndarray, "p"],
    *,
    vectors_at: Callable[[Int64[np.ndarray, "r"]], Float16[np.ndarray, "r d"]],
    centroids: Float32[np.ndarray, "k d"],
) -> Int64[np.ndarray, "b"]:
    """The nearest of the centroids that were proposed for each row.

    Args:
        row: 0 to b - 1, ascending, each at least once.
        cluster: proposed, ascending for each row.
        vectors_at: the vectors of some rows; asked for those alone that have several proposals.
        centroids: unit length.
    """
    starts = np.flatnonzero(run_starts(row))
    lengths = np.diff(starts, append=len(row))
    best = cluster[starts]
    unsure = np.flatnonzero(lengths > 1)
    if len(unsure):
        rival = np.flatnonzero(np.repeat(lengths > 1, lengths))
        place = np.repeat(np.arange(len(unsure)), lengths[unsure])
        best[unsure] = decide(vectors_at(unsure), centroids, place, cluster[rival])
    return best


def decide(
    vectors: Float16[np.ndarray, "r d"],
    centroids: Float32[np.ndarray, "k d"],
    row: Int64[np.ndarray, "p"],
    cluster: Int64[np.ndarray, "p"],
) -> Int64[np.ndarray, "r"]:
    """The best cluster of every row among its rivals (rows ascending, all of them): fp32 where that tells."""
    wide = torch.from_numpy(vectors).float().numpy()  # NumPy takes ten times as long
    score = pair_products(wide, centroids, rows=row, columns=cluster)
    starts = np.flatnonzero(run_starts(row))
    highest = np.repeat(np.maximum.reduceat(score, starts), np.diff(starts, append=len(row)))
    # fp32 loses d·2^-24·|x|·|c| at most, in any order; 2 for the subtraction.
    near = np.flatnonzero(score >= highest - np.float32(2 * MAX_NORM * (vectors.shape[1] + 2) * 2.0**-24))
    row, cluster = row[near], cluster[near]
    final = np.zeros(len(near))
    tied = np.flatnonzero(np.bincount(row)[row] > 1)
    final[tied] = exact_products(vectors[row[tied]], centroids[cluster[tied]])
    ranked = np.lexsort((cluster, -final, row))
    return np.asarray(cluster[ranked[run_starts(row[ranked])]])
