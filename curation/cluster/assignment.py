"""Which centroid each vector is nearest to: a cheap product proposes, fp32 narrows down, fp64 decides.

The answer for a row is the centroid of the largest fp64 inner product, the lowest of equals, and nothing but
the row and the centroids enters into it. Three sieves lead there, each with a bound on its own error:

1. A product in int8 (fp32 where the CPU has no VNNI). Centroids are taken from their mean first, since what
   all of them share orders nothing and would only widen the bound. With codes x' of a row x and c' of such a
   centroid c, `|<x, c> - <x', c'>| <= |x - x'| |c| + |x'| |c - c'|` (`curation.search.product`), so the best
   centroid is among those whose product lies within twice that bound of the row's largest: for most, one.
2. Those few pairs in fp32, off by d·2^-24 at most.
3. What is left within twice of that, in fp64.

Work is cut into blocks of rows, each done by one thread on one core from end to end: what one step leaves in
the cache the next one finds there, and NumPy's single-threaded steps cost no idle core.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float16, Float32, Float64, Int32, Int64

from curation.search.pair_products import pair_products
from curation.search.product import ProposeDtype, fastest_dtype
from curation.search.threads import set_search_threads


@dataclass(frozen=True)
class Block:
    """Some vectors and their nearest centroids."""

    rows: slice  # counted over all arrays
    vectors: Float16[np.ndarray, "b d"]
    wide: torch.Tensor  # the vectors in fp32; overwritten by the thread's next block
    cluster: Int32[np.ndarray, "b"]


Visit = Callable[[Block], None]

BLOCK_ROWS = 512
TILE_CENTROIDS = 4096  # with 512 rows 8 MB of products: read four times, so they should stay in a cache
_MAX_NORM = 1.01  # of a unit vector that fp16 has rounded
_SLACK = 1e-4  # for the rounding of codes' residuals, which are computed in fp32


def for_each_block(
    arrays: Iterable[Float16[np.ndarray, "m d"]],
    search: "Search",
    make_visit: Callable[[], Visit],
) -> None:
    """Find the nearest centroid of every vector, on as many threads as torch is set to use.

    Args:
        arrays: vectors of unit length; the next one is asked for when the one before is handed out.
        search: the centroids.
        make_visit: called once a thread; what it returns is called with every block of that thread.
    """
    blocks = _blocks(arrays)
    lock = threading.Lock()

    def work() -> None:
        desk, visit = None, None
        while True:
            with lock:
                start, vectors = next(blocks, (0, None))
            if vectors is None:
                return
            if desk is None or visit is None:
                desk, visit = _Desk(search), make_visit()
            visit(desk.assign(vectors, slice(start, start + len(vectors))))

    num_threads = torch.get_num_threads()
    if num_threads == 1:
        work()
    else:
        _on_threads(work, num_threads)


def _on_threads(work: Callable[[], None], num_threads: int) -> None:
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(num_threads, initializer=_use_one_core) as pool:
            for done in [pool.submit(work) for _ in range(num_threads)]:
                done.result()
    finally:
        torch.set_num_threads(before)  # torch gives to new threads what any thread has set last


def _use_one_core() -> None:
    torch.set_num_threads(1)
    set_search_threads(1)


def exact_products(
    x: Float16[np.ndarray, "#b d"], c: Float32[np.ndarray, "#b d"]
) -> Float64[np.ndarray, "b"]:
    """Row by row fp64 inner products, added in NumPy's fixed pairwise order."""
    return (x.astype(np.float64) * c).sum(axis=1)


@dataclass(frozen=True)
class _Tile:
    """A run of centroids in the arithmetic of the proposals."""

    first: int
    values: torch.Tensor  # (t, d) int8 or fp32
    scale: float  # code = scale * values
    norm: float  # the largest |c|, of centroids less their mean
    residual: float  # the largest |c - c'|


@dataclass(frozen=True)
class Search:
    """Centroids, made ready to be searched; make one with `search_for`."""

    centroids: Float32[np.ndarray, "k d"]
    tiles: tuple[_Tile, ...]
    dtype: ProposeDtype


def search_for(centroids: Float32[np.ndarray, "k d"], *, dtype: ProposeDtype | None = None) -> Search:
    """Make centroids ready to be searched.

    Args:
        centroids: unit length.
        dtype: arithmetic of the proposals, int8 or fp32; None: `fastest_dtype`. No result depends on it.
    """
    dtype = dtype or fastest_dtype()
    own = np.ascontiguousarray(centroids)
    moved = torch.from_numpy(own - own.mean(axis=0, dtype=np.float64).astype(np.float32))
    # One scale for all, so that products of different tiles compare.
    inverse = 127 / float(moved.abs().amax().clamp_(min=1e-30))
    starts = range(0, len(own), TILE_CENTROIDS)
    return Search(own, tuple(_tile(moved, first, inverse=inverse, dtype=dtype) for first in starts), dtype)


def _tile(moved: torch.Tensor, first: int, *, inverse: float, dtype: ProposeDtype) -> _Tile:
    c = moved[first : first + TILE_CENTROIDS]
    norm = torch.linalg.vector_norm(c, dim=1).amax().item() * (1 + _SLACK)
    if dtype == "fp32":
        return _Tile(first, c.contiguous(), 1.0, norm, 0.0)
    # At least two dimensions: torch 2.14's int8 product of width 1 is wrong.
    values = torch.zeros((len(c), max(c.shape[1], 2)), dtype=torch.int8)
    scaled = c * inverse
    codes = scaled.round()
    values[:, : c.shape[1]] = codes
    left = torch.linalg.vector_norm(scaled - codes, dim=1).amax().item()
    residual = (left * (1 + _SLACK) + _SLACK * c.shape[1] ** 0.5) / inverse
    return _Tile(first, values, 1 / inverse, norm, residual)


class _Desk:
    """One thread's buffers: made once, because fresh pages cost as much as the work on them."""

    def __init__(self, search: Search) -> None:
        self._search = search
        dim = search.centroids.shape[1]
        width = min(TILE_CENTROIDS, len(search.centroids))
        is_int8 = search.dtype == "int8"
        self._wide = torch.empty((BLOCK_ROWS, dim))
        self._scaled, self._codes = torch.empty((2, BLOCK_ROWS, dim))
        self._values = torch.zeros((BLOCK_ROWS, max(dim, 2)), dtype=torch.int8)
        self._table = torch.empty(BLOCK_ROWS * width, dtype=torch.int32 if is_int8 else torch.float32)
        self._block = self._wide

    def assign(self, vectors: Float16[np.ndarray, "b d"], rows: slice) -> Block:
        """Find the nearest centroid of every vector of a block."""
        self._block = self._wide[: len(vectors)]
        # A copy: torch takes no read-only (memory-mapped) array without a warning.
        vectors = np.array(vectors)
        self._block.copy_(torch.from_numpy(vectors))
        row, cluster = self._propose()
        starts = np.flatnonzero(np.diff(row, prepend=-1))
        best = cluster[starts]
        lengths = np.diff(starts, append=len(row))
        pairs = np.flatnonzero(np.repeat(lengths > 1, lengths))
        if len(pairs):
            centroids, rivals = self._search.centroids, (row[pairs], cluster[pairs])
            score = pair_products(self._block.numpy(), centroids, rows=rivals[0], columns=rivals[1])
            best[lengths > 1] = _decide(vectors, centroids, rivals=rivals, score=score)
        return Block(rows, vectors, self._block, best.astype(np.int32))

    def _propose(self) -> tuple[Int64[np.ndarray, "p"], Int64[np.ndarray, "p"]]:
        """Every row with the clusters that may be its best, in the order of rows, then clusters."""
        window = self._encode()
        num_rows = len(self._block)
        best = np.full(num_rows, -np.inf)
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        every = np.arange(num_rows)
        for tile in self._search.tiles:
            table = self._multiply(tile)
            column = table.argmax(axis=1)  # NumPy's is vectorised; torch's costs four times as much
            top = table[every, column]
            np.maximum(best, top, out=best)
            floor = best - window
            found.append((every, column + tile.first, top.astype(np.float64)))
            table[every, column] = -(2**31) if table.dtype == np.int32 else -np.inf
            crowded = np.flatnonzero(table.max(axis=1) >= floor)
            if len(crowded):
                rest = table[crowded]
                row, other = np.divmod(np.flatnonzero(rest >= _as_kind(floor[crowded], rest)), rest.shape[1])
                found.append((crowded[row], other + tile.first, rest[row, other].astype(np.float64)))
        row, cluster, score = (np.concatenate(pieces) for pieces in zip(*found, strict=True))
        near = np.flatnonzero(score >= (best - window)[row])
        near = near[np.argsort(row[near] * len(self._search.centroids) + cluster[near])]
        return row[near], cluster[near]

    def _encode(self) -> Float64[np.ndarray, "b"]:
        """Put the block into the arithmetic of the proposals; returns twice the bound, in its units."""
        norm = max(tile.norm for tile in self._search.tiles)
        dim = self._block.shape[1]
        if self._search.dtype == "fp32":
            # 2^-23, for hardware that truncates.
            return np.full(len(self._block), 2 * _MAX_NORM * norm * (dim + 2) * 2.0**-23)
        block, scaled, codes = (t[: len(self._block)] for t in (self._block, self._scaled, self._codes))
        inverse = 127 / torch.maximum(block.amax(dim=1), -block.amin(dim=1)).clamp_(min=1e-30)
        torch.mul(block, inverse[:, None], out=scaled)
        torch.round(scaled, out=codes)
        self._values[: len(block), :dim] = codes
        left = torch.linalg.vector_norm(scaled.sub_(codes), dim=1).double().numpy()
        to_scale = inverse.double().numpy()
        residual = (left * (1 + _SLACK) + _SLACK * dim**0.5) / to_scale
        worst = max(tile.residual for tile in self._search.tiles) + 2.0**-23 * norm
        bound = residual * norm + (_MAX_NORM + residual) * worst
        return np.ceil(2 * bound * to_scale / self._search.tiles[0].scale)

    def _multiply(self, tile: _Tile) -> np.ndarray:
        num_rows, width = len(self._block), len(tile.values)
        if self._search.dtype == "int8":
            table = self._table[: num_rows * width].view(num_rows, width)
            return torch._int_mm(self._values[:num_rows], tile.values.T, out=table).numpy()
        # A 1×1 convolution of at least 16 images is the same product by oneDNN: 215 GFLOP/s a core on AMD,
        # where torch.mm (MKL) has 95.
        dim = tile.values.shape[1]
        padded = torch.nn.functional.pad(self._block, (0, 0, 0, -num_rows % 16))
        images = padded.view(16, -1, 1, dim).permute(0, 3, 1, 2)
        products = torch.nn.functional.conv2d(images, tile.values.view(width, dim, 1, 1))
        return products.permute(0, 2, 3, 1).reshape(-1, width)[:num_rows].numpy()


def _as_kind(floor: Float64[np.ndarray, "c"], table: np.ndarray) -> np.ndarray:
    """A floor by row to compare the table with in its own type; rounded down, so that nothing is lost."""
    if table.dtype == np.int32:
        return np.floor(floor).astype(np.int32)[:, None]
    return np.nextafter(floor.astype(np.float32), np.float32(-np.inf))[:, None]


def _decide(
    vectors: Float16[np.ndarray, "b d"],
    centroids: Float32[np.ndarray, "k d"],
    *,
    rivals: tuple[Int64[np.ndarray, "p"], Int64[np.ndarray, "p"]],
    score: Float32[np.ndarray, "p"],
) -> Int64[np.ndarray, "r"]:
    """The best cluster of every row among `rivals` (rows, ascending, and clusters): fp32 where that tells."""
    row, cluster = rivals
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    lengths = np.diff(starts, append=len(row))
    # fp32 loses d·2^-24·|x|·|c| at most, in any order; 2 for the subtraction.
    window = np.float32(2 * _MAX_NORM * (vectors.shape[1] + 2) * 2.0**-24)
    near = np.flatnonzero(score >= np.repeat(np.maximum.reduceat(score, starts), lengths) - window)
    place = np.repeat(np.arange(len(starts)), lengths)[near]
    row, cluster = row[near], cluster[near]
    final = np.zeros(len(near))
    tied = np.flatnonzero(np.bincount(place)[place] > 1)
    final[tied] = exact_products(vectors[row[tied]], centroids[cluster[tied]])
    ranked = np.lexsort((cluster, -final, place))
    return cluster[ranked[np.flatnonzero(np.diff(place[ranked], prepend=-1))]]


def _blocks(
    arrays: Iterable[Float16[np.ndarray, "m d"]],
) -> Iterator[tuple[int, Float16[np.ndarray, "b d"]]]:
    """Blocks of rows, each with the number of its first row over all arrays."""
    offset = 0
    for vectors in arrays:
        for start in range(0, len(vectors), BLOCK_ROWS):
            yield offset + start, vectors[start : start + BLOCK_ROWS]
        offset += len(vectors)
