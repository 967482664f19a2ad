"""Scored pairs, and the rule that tames hubs."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from curation.errors import ConfigError
from curation.runs import place_in_run

_FIRST_LIMIT = 1 << 20  # edges held (24 MB) before a limit is applied for the first time


@dataclass(frozen=True)
class Pairs:
    """Scored index pairs, sorted by (a, b).

    `num_hub_rows` rows had more edges than `max_edges_per_row`, which cost `num_dropped` edges. The largest
    group of equal rows, of which one stood for all, has `largest_group` (0: nothing was collapsed).
    """

    a: Int64[ndarray, " e"]
    b: Int64[ndarray, " e"]
    score: Float64[ndarray, " e"]
    num_hub_rows: int = 0
    num_dropped: int = 0
    largest_group: int = 0


def limit_edges(
    a: Int64[ndarray, " e"], b: Int64[ndarray, " e"], score: Float64[ndarray, " e"], *, max_edges_per_row: int
) -> Bool[ndarray, " e"]:
    """Tell which edges of a graph stay when every row may name only its best edges.

    A row names its `max_edges_per_row` best edges, by (higher score, smaller index of the other row). An
    edge stays when either of its ends names it, so the rule has no direction, at most rows × limit edges
    stay, and a row may keep more than the limit (through the naming of others). An edge that is named
    within a set of edges is named within each of its subsets that holds it. So the rule may be applied to
    subsets first (tiles, or pairs of blocks): applied once more to their union, it gives what it would have
    given on the whole. The limited graph may fall into more components than the full one.

    Args:
        a: int64 (e,), rows; with `b`, of one numbering. Each pair at most once.
        b: int64 (e,), rows.
        score: float64 (e,).
        max_edges_per_row: the limit, at least 1.

    Returns:
        bool (e,), true where the edge stays.
    """
    num_edges = len(a)
    row = np.concatenate([a, b])
    other = np.concatenate([b, a])
    order = np.lexsort((other, -np.concatenate([score, score]), row))
    named = np.zeros(2 * num_edges, bool)
    named[order] = place_in_run(row[order]) < max_edges_per_row
    return named[:num_edges] | named[num_edges:]


@dataclass
class EdgeCollector:
    """Gathers the edges of a join tile by tile, and limits them on the way.

    Args:
        num_a: rows on the left.
        num_b: rows on the right.
        same: both sides are the same rows; otherwise row i of `a` and row i of `b` are two rows.
        max_edges_per_row: see `limit_edges`; None keeps every edge.
    """

    num_a: int
    num_b: int
    same: bool
    max_edges_per_row: int | None
    _tiles: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    _num_seen: int = 0
    _num_held: int = 0
    _next_limit: int = field(default_factory=lambda: _FIRST_LIMIT)

    def __post_init__(self) -> None:
        if self.max_edges_per_row is not None and self.max_edges_per_row < 1:
            raise ConfigError(
                "max_edges_per_row limits every row to nothing",
                got=self.max_edges_per_row,
                expected="a whole number of at least 1, or null for no limit",
            )
        self._shift = 0 if self.same else self.num_a
        self._degree = np.zeros(self._shift + self.num_b, np.int64)

    def add(self, a: np.ndarray, b: np.ndarray, score: np.ndarray) -> None:
        """Take the edges of one tile; every pair may come once in all."""
        if not len(a):
            return
        self._tiles.append((a, b + self._shift, score))
        self._num_seen += len(a)
        self._num_held += len(a)
        if self.max_edges_per_row is None:
            return
        np.add.at(self._degree, a, 1)
        np.add.at(self._degree, b + self._shift, 1)
        if self._num_held > self._next_limit:
            self._limit(self.max_edges_per_row)
            self._next_limit = max(self._next_limit, 2 * self._num_held)

    def _joined(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if not self._tiles:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        a, b, score = (np.concatenate(column) for column in zip(*self._tiles, strict=True))
        return a, b, score

    def _limit(self, max_edges_per_row: int) -> None:
        a, b, score = self._joined()
        keep = limit_edges(a, b, score, max_edges_per_row=max_edges_per_row)
        self._tiles = [(a[keep], b[keep], score[keep])]
        self._num_held = int(keep.sum())

    def pairs(self) -> Pairs:
        """Return what was gathered, limited and sorted."""
        num_hub_rows = 0
        if self.max_edges_per_row is not None:
            self._limit(self.max_edges_per_row)
            num_hub_rows = int((self._degree > self.max_edges_per_row).sum())
        a, b, score = self._joined()
        order = np.lexsort((b, a))
        return Pairs(
            a[order], b[order] - self._shift, score[order], num_hub_rows, self._num_seen - self._num_held
        )
