"""What an iteration of k-means needs of the vectors: their sums and counts by cluster.

Sums are fp64 and have no rounding (see `curation.cluster.kmeans`), so vectors may be added in any order, and
one that leaves a cluster may be taken off again.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float16, Float32, Float64, Int32, Int64

from curation.cluster.assignment import MAX_NORM, Desk, mean_of, search_for
from curation.cluster.blocks import BlockWork, for_each_block
from curation.search.codes import Codes

# What `RunningSums` keeps of codes, which have half the bytes of the vectors.
CODES_BYTES = 1 << 30
_MOVED_ROWS = 256  # in fp64 they stay in a core's cache, and in memory that the allocator has at hand
MOVERS_SHARE = 8  # one centroid in so many is held against all rows, which costs as much of a full product
_ROUNDING = np.float32(1e-6)  # covers what fp32 leads and lows lose in an iteration


@dataclass(frozen=True)
class PartSums:
    """What one part, or several, contribute to an iteration: their vectors' sums and counts by cluster."""

    sums: Float64[np.ndarray, "k d"]
    counts: Int64[np.ndarray, "k"]


def sum_arrays(
    arrays: Iterable[Float16[np.ndarray, "_ d"]], centroids: Float32[np.ndarray, "k d"]
) -> PartSums:
    """Sums and counts of all vectors under `centroids`; all that an iteration needs of them.

    Args:
        arrays: vectors of unit length, no zeros; few are open at a time.
        centroids: unit length.

    Returns:
        fp64 sums without rounding, so that adding those of parts is exact too.
    """
    total = _Total(*centroids.shape)
    search = search_for(centroids)

    def make_work() -> BlockWork:
        desk = Desk(search)

        def work(_rows: slice, vectors: Float16[np.ndarray, "b d"]) -> None:
            total.move(vectors, None, desk.assign(vectors, desk.encode(vectors)).cluster)

        return work

    for_each_block(arrays, make_work)
    return total.sums()


def add_sums(parts: Iterable[PartSums]) -> PartSums:
    """Totals over parts, added in part order."""
    rest = iter(parts)
    first = next(rest)
    sums, counts = first.sums.copy(), first.counts.copy()
    for part in rest:
        sums += part.sums
        counts += part.counts
    return PartSums(sums=sums, counts=counts)


class RunningSums:
    """`sum_arrays` of the same arrays again and again, with what one iteration can tell the next.

    Centroids move by little once the first iterations are over, and most of them by nothing at all. Let a
    row's product with its own centroid lead by g, let its own have moved by m since, and any other by D at
    most: while g > m + D it keeps its cluster. The few centroids that moved most (`movers`) would spoil D for
    all rows, so a row that keeps its lead over the others is held against these alone, by a bound on its
    product with its own. What is left is assigned anew. Vectors are read, and sums changed, only where a row
    may change its cluster. The sums are those of `sum_arrays`, to the bit.

    Source: the bounds of Hamerly 2010, "Making k-means even faster", on inner products, and movers apart.

    Args:
        open_arrays: opens the arrays, the same each time.
        num_rows: of all of them.
        codes_bytes: what is kept of codes at most, in bytes; beside these 12 bytes a row are kept.
    """

    def __init__(
        self,
        open_arrays: Callable[[], Iterable[Float16[np.ndarray, "_ d"]]],
        num_rows: int,
        *,
        codes_bytes: int = CODES_BYTES,
    ) -> None:
        self._open_arrays = open_arrays
        self._codes_bytes = codes_bytes
        self._codes: dict[int, Codes] = {}  # by the first row of their block
        self._cluster = np.full(num_rows, -1, np.int32)
        self._lead, self._low = np.zeros((2, num_rows), np.float32)
        self._num_done = 0
        self._before = np.zeros((0, 0), np.float32)
        self._origin = np.zeros(0, np.float32)
        self._total: _Total | None = None

    def under(self, centroids: Float32[np.ndarray, "k d"]) -> PartSums:
        """Sums under `centroids`; good until the next call."""
        is_new = self._num_done < 2
        if is_new:  # seeds have another mean than what becomes of them
            self._origin, self._before = mean_of(centroids), centroids
        total = self._total or _Total(*centroids.shape)
        moves = _Moves.between(self._before, centroids)
        search = search_for(centroids, origin=self._origin)
        movers = search_for(centroids[moves.movers], origin=self._origin) if len(moves.movers) else None

        def make_work() -> BlockWork:
            desk, movers_desk = Desk(search), movers and Desk(movers)

            def work(rows: slice, vectors: Float16[np.ndarray, "b d"]) -> None:
                cluster, lead, low = self._cluster[rows], self._lead[rows], self._low[rows]
                if not is_new:
                    own = moves.by[cluster]
                    low -= own + _ROUNDING
                    lead -= own + (moves.of_others + _ROUNDING)
                if is_new or (lead <= 0).any() or movers_desk:
                    codes = self._codes_of(rows, vectors, desk)
                    held = np.flatnonzero(lead > 0)
                    if movers_desk and len(held) and not is_new:
                        lead[held] = np.minimum(lead[held], low[held] - movers_desk.ceiling(codes[held]))
                    active = np.arange(len(lead)) if is_new else np.flatnonzero(lead <= 0)
                    found = desk.assign(vectors, codes if len(active) == len(lead) else codes[active], active)
                    lead[active], low[active] = found.lead, found.low
                    changed = np.flatnonzero(found.cluster != cluster[active])
                    mover = active[changed]
                    total.move(vectors[mover], cluster[mover], found.cluster[changed])
                    cluster[mover] = found.cluster[changed]

            return work

        for_each_block(self._open_arrays(), make_work)
        self._before, self._total, self._num_done = centroids, total, self._num_done + 1
        return total.sums()

    def _codes_of(self, rows: slice, vectors: Float16[np.ndarray, "a d"], desk: Desk) -> Codes:
        codes = self._codes.get(rows.start)
        if codes is None:
            codes = desk.encode(vectors)
            if codes.values.nbytes <= self._codes_bytes:
                self._codes_bytes -= codes.values.nbytes
                self._codes[rows.start] = codes
        return codes


@dataclass(frozen=True)
class _Moves:
    """By how much a unit vector's product with each centroid may have changed, at most."""

    by: Float32[np.ndarray, "k"]
    movers: Int64[np.ndarray, "m"]  # the centroids that moved most
    of_others: float  # the largest move of the rest

    @staticmethod
    def between(before: Float32[np.ndarray, "k d"], now: Float32[np.ndarray, "k d"]) -> "_Moves":
        difference = now.astype(np.float64) - before
        by = (MAX_NORM * np.sqrt((difference * difference).sum(axis=1))).astype(np.float32)
        order = np.argsort(-by, kind="stable")
        num_movers = min(len(by) // MOVERS_SHARE, int((by > 0).sum()))
        return _Moves(by, np.sort(order[:num_movers]), float(by[order[num_movers]]) if len(by) else 0.0)


class _Total:
    """Sums and counts that several threads add to."""

    def __init__(self, num_clusters: int, dim: int) -> None:
        self._sums = torch.zeros((num_clusters, dim), dtype=torch.float64)
        self._counts = np.zeros(num_clusters, np.int64)
        self._lock = threading.Lock()

    def sums(self) -> PartSums:
        return PartSums(sums=self._sums.numpy(), counts=self._counts)

    def move(
        self,
        vectors: Float16[np.ndarray, "b d"],
        old: Int32[np.ndarray, "b"] | None,
        new: Int32[np.ndarray, "b"],
    ) -> None:
        """Take vectors out of their old clusters (-1 or None: they were in none) into their new ones."""
        for start in range(0, len(vectors), _MOVED_ROWS):
            cut = slice(start, start + _MOVED_ROWS)
            wide = torch.from_numpy(np.array(vectors[cut])).double()
            with self._lock:
                self._add(wide, new[cut], 1)
                if old is not None and len(left := np.flatnonzero(old[cut] >= 0)):
                    self._add(wide[torch.from_numpy(left)], old[cut][left], -1)

    def _add(self, vectors: torch.Tensor, cluster: Int32[np.ndarray, "b"], sign: int) -> None:
        self._sums.index_add_(0, torch.from_numpy(cluster), vectors, alpha=sign)
        np.add.at(self._counts, cluster, sign)
