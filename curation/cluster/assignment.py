"""Which centroid each vector is nearest to: a cheap product proposes, fp32 narrows down, fp64 decides.

The answer for a row is the centroid of the largest fp64 inner product, the lowest of equals, and nothing but
the row and the centroids enters into it. Three sieves lead there, each with a bound on its own error:

1. A product in int8 (in bf16 or fp32 where the CPU has no VNNI). Centroids are taken from their mean first,
   since what all of them share orders nothing and would only widen the bound. With codes x' of a row x and c'
   of such a centroid c, `|<x, c> - <x', c'>| <= |x - x'| |c| + |x'| |c - c'|` (`curation.search.product`), so
   the best centroid is among those whose product lies within twice that bound of the row's largest: for most,
   one.
2. Those few pairs in fp32, off by d·2^-24 at most.
3. What is left within twice of that, in fp64.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float16, Float32, Float64, Int32, Int64

from curation.cluster.blocks import BLOCK_ROWS
from curation.search.pair_products import pair_products
from curation.search.product import (
    ROUNDING,
    ProposeDtype,
    buffer_for,
    fastest_dtype,
    held_in,
    multiply,
    multiply_fp32,
)

TILE_CENTROIDS = 2048  # with 2048 rows 16 MB of products: read three times, so they should stay in a cache
MAX_NORM = 1.01  # of a unit vector that fp16 has rounded
_SLACK = 1e-4  # for the rounding of codes' residuals, which are computed in fp32


def exact_products(
    x: Float16[np.ndarray, "#b d"], c: Float32[np.ndarray, "#b d"]
) -> Float64[np.ndarray, "b"]:
    """Row by row fp64 inner products, added in NumPy's fixed pairwise order."""
    return (x.astype(np.float64) * c).sum(axis=1)


@dataclass(frozen=True)
class RowCodes:
    """Rows in the arithmetic of the proposals; they depend on no centroid, so they may be kept."""

    values: torch.Tensor  # (b, d or 2) int8, bf16 or fp32
    scale: Float64[np.ndarray, "b"]  # code = scale * values
    residual: Float64[np.ndarray, "b"]  # |x - x'|

    def __getitem__(self, rows: Int64[np.ndarray, "r"]) -> "RowCodes":
        """Return some of the rows, copied."""
        return RowCodes(self.values[torch.from_numpy(rows)], self.scale[rows], self.residual[rows])


@dataclass(frozen=True)
class _Tile:
    """A run of centroids in the arithmetic of the proposals."""

    first: int
    values: torch.Tensor  # (t, d or 2) int8, bf16 or fp32
    scale: float  # code = scale * values
    norm: float  # the largest |c|, of centroids less their mean
    residual: float  # the largest |c - c'|


@dataclass(frozen=True)
class Search:
    """Centroids, made ready to be searched; make one with `search_for`."""

    centroids: Float32[np.ndarray, "k d"]
    tiles: tuple[_Tile, ...]
    dtype: ProposeDtype


def search_for(
    centroids: Float32[np.ndarray, "k d"],
    *,
    origin: Float32[np.ndarray, "d"] | None = None,
    dtype: ProposeDtype | None = None,
) -> Search:
    """Make centroids ready to be searched.

    Args:
        centroids: unit length.
        origin: taken off every centroid before it is coded; None: their mean.
        dtype: arithmetic of the proposals: int8, bf16 or fp32; None: `fastest_dtype`. No result depends on
            it.
    """
    dtype = dtype or fastest_dtype()
    own = np.ascontiguousarray(centroids)
    if origin is None:
        origin = mean_of(own)
    moved = torch.from_numpy(own - origin)
    # One scale for all, so that products of different tiles compare.
    inverse = 127 / float(moved.abs().amax().clamp_(min=1e-30))
    starts = range(0, len(own), TILE_CENTROIDS)
    return Search(own, tuple(_tile(moved, first, inverse=inverse, dtype=dtype) for first in starts), dtype)


def mean_of(centroids: Float32[np.ndarray, "k d"]) -> Float32[np.ndarray, "d"]:
    """What all centroids share: it orders nothing, and widens the bounds of their codes."""
    return centroids.mean(axis=0, dtype=np.float64).astype(np.float32)


def _tile(moved: torch.Tensor, first: int, *, inverse: float, dtype: ProposeDtype) -> _Tile:
    c = moved[first : first + TILE_CENTROIDS]
    norm = torch.linalg.vector_norm(c, dim=1).amax().item() * (1 + _SLACK)
    if dtype == "fp32":
        return _Tile(first, c.contiguous(), 1.0, norm, 0.0)
    if dtype == "bf16":
        short = c.bfloat16()
        lost = torch.linalg.vector_norm(c.double() - short.double(), dim=1).amax().item()
        return _Tile(first, short.to(held_in(dtype)), 1.0, norm, lost * (1 + _SLACK))
    # At least two dimensions: torch 2.14's int8 product of width 1 is wrong.
    values = torch.zeros((len(c), max(c.shape[1], 2)), dtype=torch.int8)
    scaled = c * inverse
    codes = scaled.round()
    values[:, : c.shape[1]] = codes
    left = torch.linalg.vector_norm(scaled - codes, dim=1).amax().item()
    residual = (left * (1 + _SLACK) + _SLACK * c.shape[1] ** 0.5) / inverse
    return _Tile(first, values, 1 / inverse, norm, residual)


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
    """One thread's buffers: made once, because fresh pages cost as much as the work on them."""

    def __init__(self, search: Search) -> None:
        self._search = search
        dim = search.centroids.shape[1]
        self._wide, self._scaled, self._rounded = torch.empty((3, BLOCK_ROWS, dim))
        width = min(TILE_CENTROIDS, len(search.centroids))
        self._products = buffer_for(search.dtype, num_products=BLOCK_ROWS * width)

    def encode(self, vectors: Float16[np.ndarray, "b d"]) -> RowCodes:
        """Put rows of unit length into the arithmetic of the proposals."""
        num_rows, dim = vectors.shape
        block = self._wide[:num_rows]
        # torch takes no read-only (memory-mapped) array without a warning.
        block.copy_(torch.from_numpy(vectors if vectors.flags.writeable else np.array(vectors)))
        if self._search.dtype == "fp32":
            return RowCodes(block.clone(), np.ones(num_rows), np.zeros(num_rows))
        if self._search.dtype == "bf16":
            short = block.bfloat16()
            lost = torch.linalg.vector_norm(block.sub_(short), dim=1).double().numpy()
            return RowCodes(short.to(held_in("bf16")), np.ones(num_rows), lost * (1 + _SLACK))
        inverse = 127 / torch.maximum(block.amax(dim=1), -block.amin(dim=1)).clamp_(min=1e-30)
        scaled = torch.mul(block, inverse[:, None], out=self._scaled[:num_rows])
        rounded = torch.round(scaled, out=self._rounded[:num_rows])
        # At least two dimensions: torch 2.14's int8 product of width 1 is wrong.
        values = torch.zeros((num_rows, max(dim, 2)), dtype=torch.int8)
        values[:, :dim] = rounded
        left = torch.linalg.vector_norm(scaled.sub_(rounded), dim=1).double().numpy()
        scale = 1 / inverse.double().numpy()
        return RowCodes(values, scale, (left * (1 + _SLACK) + _SLACK * dim**0.5) * scale)

    def assign(
        self,
        vectors: Float16[np.ndarray, "m d"],
        codes: RowCodes,
        rows: Int64[np.ndarray, "b"] | None = None,
    ) -> Assigned:
        """Find the nearest centroid of every row.

        Args:
            vectors: unit length; read only where codes cannot tell.
            codes: of at most `BLOCK_ROWS` of them.
            rows: of which; None: of all.
        """
        lead, low, row, cluster = self._propose(codes)
        if len(row) == len(low):
            return Assigned(cluster.astype(np.int32), lead, low)
        starts = _starts(row)
        lengths = np.diff(starts, append=len(row))
        best = cluster[starts]
        unsure = np.flatnonzero(lengths > 1)
        rival = np.flatnonzero(np.repeat(lengths > 1, lengths))
        place = np.repeat(np.arange(len(unsure)), lengths[unsure])
        read = vectors[unsure if rows is None else rows[unsure]]
        best[unsure] = decide(read, self._search.centroids, place, cluster[rival])
        return Assigned(best.astype(np.int32), lead, low)

    def ceiling(self, codes: RowCodes) -> Float32[np.ndarray, "b"]:
        """What the product of each row with any centroid, less the origin, is at most."""
        unit, window = self._units(codes)
        tops = [self._multiply(codes, tile).max(axis=1).astype(np.float64) for tile in self._search.tiles]
        return ((np.max(tops, axis=0) + window / 2) * unit).astype(np.float32)

    def _propose(
        self, codes: RowCodes
    ) -> tuple[
        Float32[np.ndarray, "b"], Float32[np.ndarray, "b"], Int64[np.ndarray, "p"], Int64[np.ndarray, "p"]
    ]:
        """Leads, lows, and every row with the clusters that may be its best, by row and then by cluster."""
        unit, window = self._units(codes)
        every, num_rows = np.arange(len(codes.scale)), len(codes.scale)
        best, second = np.full((2, num_rows), -np.inf)
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for tile in self._search.tiles:
            table = self._multiply(codes, tile)
            column = table.argmax(axis=1)  # NumPy's is vectorised; torch's costs four times as much
            top = table[every, column].astype(np.float64)
            table[every, column] = -(2**31) if table.dtype == np.int32 else -np.inf
            next_top = table.max(axis=1).astype(np.float64)
            second = np.maximum(np.maximum(second, next_top), np.minimum(best, top))
            best = np.maximum(best, top)
            found.append((every, column + tile.first, top))
            crowded = np.flatnonzero(next_top >= best - window)
            if len(crowded):
                # A copy of the crowded rows pays while they are few; the others have nothing above the floor.
                near = crowded if 2 * len(crowded) < num_rows else every
                rest = table if len(near) == num_rows else table[near]
                flat = np.flatnonzero(rest >= _as_kind(best[near] - window[near], rest))
                row = flat // rest.shape[1]
                other = flat - row * rest.shape[1]
                found.append((near[row], other + tile.first, rest[row, other].astype(np.float64)))
        lead = np.maximum((best - second - window) * unit, 0).astype(np.float32)
        low = ((best - window / 2) * unit).astype(np.float32)
        if len(found) == 1:
            return lead, low, found[0][0], found[0][1]
        row, cluster, score = (np.concatenate(pieces) for pieces in zip(*found, strict=True))
        near = np.flatnonzero(score >= (best - window)[row])
        near = near[np.argsort(row[near] * len(self._search.centroids) + cluster[near])]
        return lead, low, row[near], cluster[near]

    def _units(self, codes: RowCodes) -> tuple[Float64[np.ndarray, "b"], Float64[np.ndarray, "b"]]:
        """What a product of 1 stands for, by row, and twice the error bound in such units, rounded up."""
        tiles, dim = self._search.tiles, self._search.centroids.shape[1]
        norm = max(tile.norm for tile in tiles)
        # What the mean of the centroids lost to fp32, what sums in fp32 lose on any hardware, and what 16
        # bits make of these.
        loss = 2.0**-23 * (1 if self._search.dtype == "int8" else dim + 2)
        loss += ROUNDING.get(self._products.dtype, 0.0) * (1 + _SLACK)
        worst = max(tile.residual for tile in tiles) + loss * norm
        bound = codes.residual * norm + (MAX_NORM + codes.residual) * worst
        unit = codes.scale * tiles[0].scale
        return unit, np.ceil(2 * bound / unit) if self._search.dtype == "int8" else 2 * bound / unit

    def _multiply(self, codes: RowCodes, tile: _Tile) -> np.ndarray:
        if codes.values.dtype == torch.float32:
            return multiply_fp32(codes.values, tile.values).numpy()
        table = multiply(codes.values, tile.values, out=self._products)
        return (table.float() if table.is_floating_point() else table).numpy()


def _as_kind(floor: Float64[np.ndarray, "c"], table: np.ndarray) -> np.ndarray:
    """A floor by row to compare the table with in its own type; rounded down, so that nothing is lost."""
    if table.dtype == np.int32:
        return np.floor(floor).astype(np.int32)[:, None]
    return np.nextafter(floor.astype(np.float32), np.float32(-np.inf))[:, None]


def decide(
    vectors: Float16[np.ndarray, "r d"],
    centroids: Float32[np.ndarray, "k d"],
    row: Int64[np.ndarray, "p"],
    cluster: Int64[np.ndarray, "p"],
) -> Int64[np.ndarray, "r"]:
    """The best cluster of every row among its rivals (rows ascending, all of them): fp32 where that tells."""
    wide = torch.from_numpy(vectors).float().numpy()  # NumPy takes ten times as long
    score = pair_products(wide, centroids, rows=row, columns=cluster)
    starts = _starts(row)
    highest = np.repeat(np.maximum.reduceat(score, starts), np.diff(starts, append=len(row)))
    # fp32 loses d·2^-24·|x|·|c| at most, in any order; 2 for the subtraction.
    near = np.flatnonzero(score >= highest - np.float32(2 * MAX_NORM * (vectors.shape[1] + 2) * 2.0**-24))
    row, cluster = row[near], cluster[near]
    final = np.zeros(len(near))
    tied = np.flatnonzero(np.bincount(row)[row] > 1)
    final[tied] = exact_products(vectors[row[tied]], centroids[cluster[tied]])
    ranked = np.lexsort((cluster, -final, row))
    return cluster[ranked[_starts(row[ranked])]]


def _starts(values: Int64[np.ndarray, "p"]) -> Int64[np.ndarray, "r"]:
    """Where each run of equal values begins."""
    is_first = np.ones(len(values), bool)
    is_first[1:] = values[1:] != values[:-1]
    return np.flatnonzero(is_first)
