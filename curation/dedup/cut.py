"""Cuts chains: components whose members are not alike to their representative fall apart.

The rule. A representative keeps the members that are alike to it and that it reaches over edges among such
members. What is left falls apart into the components of the edges among itself, each of which has its own
best row as its representative, and so on. In the end all members of a piece are alike to its representative.
To cut the weakest edges one by one instead would peel a chain of edges of one strength into single images,
which are near copies of each other and would all stay.

The way. A row is a representative exactly when no better one has taken it, and what it takes it reaches over
rows that no better one has: so rows are asked in order of rank, components are never made, and an edge is
looked at from each end once. Many rows ask at a time, since a comparison costs far less in a batch. Each
reaches out as if it came next, and when its turn comes keeps what it still reaches; that can only be less.
What is reached in vain is paid from an allowance that grows with what is not, so the work follows the edges.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray

from curation.dedup.components import components
from curation.runs import places_of_runs

# Whether rows are alike to other rows: (r,) and (r,) → bool (r,).
IsAlike = Callable[[Int64[ndarray, " r"], Int64[ndarray, " r"]], Bool[ndarray, " r"]]

_MAX_AHEAD = 4096  # rows that reach out at a time
_FIRST_ALLOWANCE = 1 << 14  # edges that may be looked at in vain
_IN_VAIN = 2  # for each edge that is not


def cut_chains(
    rank: Int64[ndarray, " m"], a: Int64[ndarray, " e"], b: Int64[ndarray, " e"], *, is_alike: IsAlike
) -> Int64[ndarray, " m"]:
    """Cut every component until it is well; those that are well stay as they are.

    Args:
        rank: int64 (m,), of rows: the smallest of a piece is its representative; no two equal.
        a: int64 (e,), rows, one end of every edge.
        b: int64 (e,), the other.
        is_alike: compares rows with others directly.

    Returns:
        int64 (m,): the smallest row of the piece that each row is in.
    """
    graph = _Neighbours.of(len(rank), a[a != b], b[a != b])
    labels, is_open = np.arange(len(rank)), np.ones(len(rank), bool)
    order = np.argsort(rank, kind="stable")
    order = order[graph.degree[order] > 0]
    allowance, ahead, place = _FIRST_ALLOWANCE, 1, 0
    while place < len(order):
        asking = place + np.flatnonzero(is_open[order[place : place + ahead]])
        place = min(place + ahead, len(order))
        if not len(asking):
            continue
        reach = _reach_out(graph, order[asking], is_open, is_alike=is_alike, allowance=allowance)
        if reach.num_leaders < len(asking):
            place = int(asking[reach.num_leaders])
        num_used = _settle(reach, graph, labels, is_open)
        allowance += (1 + _IN_VAIN) * num_used - reach.num_looked_at
        is_worth_it = 2 * num_used >= reach.num_looked_at
        ahead = min(2 * ahead, _MAX_AHEAD) if is_worth_it else max(ahead // 2, 1)
    return labels


@dataclass(frozen=True)
class _Neighbours:
    """The neighbours of every row."""

    starts: Int64[ndarray, " m1"]
    neighbours: Int64[ndarray, " n"]
    degree: Int64[ndarray, " m"]

    @staticmethod
    def of(num_rows: int, a: Int64[ndarray, " e"], b: Int64[ndarray, " e"]) -> "_Neighbours":
        source, target = np.concatenate([a, b]), np.concatenate([b, a])
        degree = np.bincount(source, minlength=num_rows)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(degree)])
        return _Neighbours(starts, target[np.argsort(source, kind="stable")], degree)

    def around(self, rows: Int64[ndarray, " r"]) -> Int64[ndarray, " n"]:
        """The neighbours of some rows, row by row: `degree` of each."""
        return np.asarray(self.neighbours[places_of_runs(self.starts[rows], self.degree[rows])])


@dataclass(frozen=True)
class _Reach:
    """What the first of some leaders reach; edges were looked at for the others too."""

    leaders: Int64[ndarray, " l"]
    rows: list[Int64[ndarray, " _"]]  # of each leader, ascending; itself among them
    num_looked_at: int

    @property
    def num_leaders(self) -> int:
        return len(self.leaders)


def _reach_out(
    graph: _Neighbours, leaders: np.ndarray, is_open: np.ndarray, *, is_alike: IsAlike, allowance: int
) -> _Reach:
    """Go from every leader over open rows that are alike to it; where it takes too much, from the first few.

    A leader and a row are one number, leader · m + row. Who is asked for the second time, since it was not
    alike the first time, is so once for each of its edges at most.
    """
    num_rows, num_looked_at = len(is_open), 0
    front = np.arange(len(leaders)) * num_rows + leaders
    before = front[:0]
    levels = []
    while len(front):
        size = graph.degree[front % num_rows]
        while len(leaders) > 1 and num_looked_at + size.sum() > allowance:
            leaders = leaders[: len(leaders) // 2]
            size, front = size[front < len(leaders) * num_rows], front[front < len(leaders) * num_rows]
        num_looked_at += int(size.sum())
        levels.append(front)
        next_row = graph.around(front % num_rows)
        pairs = (np.repeat(front // num_rows, size) * num_rows + next_row)[is_open[next_row]]
        # Of what is alike, a neighbour lies in this level, the one before or the next.
        pairs = np.setdiff1d(pairs, np.concatenate([before, front]))
        alike = is_alike(pairs % num_rows, leaders[pairs // num_rows]) if len(pairs) else pairs > 0
        before, front = front, pairs[alike]
    reached = np.sort(np.concatenate(levels))
    ends = np.searchsorted(reached, np.arange(1, len(leaders) + 1) * num_rows)
    return _Reach(leaders, np.split(reached[: ends[-1]] % num_rows, ends[:-1]), num_looked_at)


def _settle(reach: _Reach, graph: _Neighbours, labels: np.ndarray, is_open: np.ndarray) -> int:
    """Give leaders what they reach, the best first; return the edges that were looked at for it."""
    num_used = 0
    for leader, rows in zip(reach.leaders.tolist(), reach.rows, strict=True):
        if not is_open[leader]:
            continue
        left = is_open[rows]
        piece = rows if left.all() else _still_reached(graph, leader, rows[left])
        labels[piece] = piece[0]
        is_open[piece] = False
        num_used += int(graph.degree[piece].sum())
    return num_used


def _still_reached(graph: _Neighbours, leader: int, rows: np.ndarray) -> Int64[ndarray, " p"]:
    """Those of some rows, ascending, that the leader reaches over them."""
    source, target = np.repeat(np.arange(len(rows)), graph.degree[rows]), graph.around(rows)
    place = np.minimum(np.searchsorted(rows, target), len(rows) - 1)
    inside = rows[place] == target
    label = components(len(rows), source[inside], place[inside])
    return np.asarray(rows[label == label[np.searchsorted(rows, leader)]])
