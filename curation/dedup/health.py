"""How healthy components are: size, diameter, weakest edge, and the chains that join unlike images."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64, Int8, Int64
from numpy import ndarray

from curation import schema
from curation.dedup.components import CopyRows, Forest
from curation.dedup.diameter import Diameters, diameters
from curation.dedup.edges import Edges, kind_column, strength
from curation.dedup.likeness import Likeness
from curation.runs import run_starts

# Edges of components that are measured at a time: about 1.5 GB with all that is made of them.
BATCH_EDGES = 10_000_000

Placed = tuple[Edges, Int64[ndarray, " _"]]  # edges, and the bucket of each
# Sorts edges into buckets: takes pieces, each with the bucket of every edge, and the number of buckets, and
# yields the edges of each bucket, in the order in which they came.
BucketSort = Callable[[Iterable[Placed], int], Iterable[Edges]]


def sort_in_memory(pieces: Iterable[Placed], num_buckets: int) -> Iterator[Edges]:
    """A `BucketSort` that holds all edges at once."""
    held = list(pieces)
    edges = Edges.joined([piece for piece, _ in held])
    bucket = np.concatenate([own for _, own in held]) if held else np.zeros(0, np.int64)
    order = np.argsort(bucket, kind="stable")
    bounds = np.searchsorted(bucket[order], np.arange(num_buckets + 1)).tolist()
    for start, stop in pairwise(bounds):
        yield edges.take(order[start:stop])


@dataclass(frozen=True)
class Health:
    """For every component, by number. Rows are global.

    size: rows. distinct: of these, those that differ: equal bytes, hashes or descriptors count once, and the
    diameter is counted in edges between them. weakest: the edge of least likeness between distinct rows (of
    several edges between two of them the strongest counts), or an edge of score 1 where all are equal.
    """

    size: Int64[ndarray, " c"]
    distinct: Int64[ndarray, " c"]
    diameter: Int64[ndarray, " c"]
    diameter_is_exact: Bool[ndarray, " c"]
    end_a: Int64[ndarray, " c"]
    end_b: Int64[ndarray, " c"]
    weakest_a: Int64[ndarray, " c"]
    weakest_b: Int64[ndarray, " c"]
    weakest: Float64[ndarray, " c"]
    weakest_kind: Int8[ndarray, " c"]

    def columns(self) -> tuple[ndarray, ...]:
        """All of it, in order."""
        return tuple(getattr(self, column.name) for column in fields(self))


def component_health(
    copies: CopyRows,
    edges: Iterable[Edges],
    *,
    num_rows: int,
    thresholds: Mapping[str, float],
    sort: BucketSort = sort_in_memory,
) -> Health:
    """Measure every component.

    Args:
        copies: every row of a component of two or more.
        edges: all that formed the components, in pieces, gone through twice; an edge between two
            components (that were cut apart) does not count.
        num_rows: global rows.
        thresholds: the score from which a pair is an edge, by kind.
        sort: how edges that are more than one batch are sorted into batches.
    """
    batches = [
        _measure(copies, batch, thresholds=thresholds)
        for batch in component_edges(copies, edges, num_rows=num_rows, sort=sort)
    ]
    return Health(*(np.concatenate(column) for column in zip(*(b.columns() for b in batches), strict=True)))


@dataclass(frozen=True)
class Batch:
    """The edges of a run of components, `first` and up to `last`."""

    first: int
    last: int
    edges: Edges


def component_edges(
    copies: CopyRows,
    edges: Iterable[Edges],
    *,
    num_rows: int,
    wanted: Bool[ndarray, " c"] | None = None,
    sort: BucketSort = sort_in_memory,
) -> Iterator[Batch]:
    """Gather the edges of components, of as many at a time as `BATCH_EDGES` allows, in two passes.

    As for `component_health`; `wanted` are the components whose edges are wanted, None: all.
    """
    number = np.full(num_rows, -1, np.int64)
    number[copies.row] = copies.component
    num_components = int(copies.component.max(initial=-1)) + 1
    if wanted is not None:
        number[copies.row[~wanted[copies.component]]] = -1
    counts = np.zeros(num_components, np.int64)
    for piece in edges:
        counts += np.bincount(number[piece.a[_inside(piece, number)]], minlength=num_components)
    bounds = _bounds(counts)
    if len(bounds) == 1:
        yield Batch(*bounds[0], Edges.joined([piece.take(_inside(piece, number)) for piece in edges]))
        return
    lasts = np.array([last for _, last in bounds])
    inside = (piece.take(_inside(piece, number)) for piece in edges)
    pieces = ((piece, np.searchsorted(lasts, number[piece.a], side="right")) for piece in inside)
    for (first, last), own in zip(bounds, sort(pieces, len(bounds)), strict=True):
        yield Batch(first, last, own)


def _bounds(counts: Int64[ndarray, " c"]) -> list[tuple[int, int]]:
    """Runs of components, first and last + 1, of at most `BATCH_EDGES` edges where one alone has no more."""
    ends, num_components = np.cumsum(counts), len(counts)
    bounds, first = [], 0
    while first < num_components:
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + BATCH_EDGES, side="right")))
        bounds.append((first, min(last, num_components)))
        first = bounds[-1][1]
    return bounds or [(0, 0)]


def _inside(piece: Edges, number: np.ndarray) -> Bool[ndarray, " e"]:
    of_a, of_b = number[piece.a], number[piece.b]
    return np.asarray((of_a == of_b) & (of_a >= 0))


def _measure(copies: CopyRows, batch: Batch, *, thresholds: Mapping[str, float]) -> Health:
    mine = (copies.component >= batch.first) & (copies.component < batch.last)
    row, component = copies.row[mine], copies.component[mine] - batch.first
    num = batch.last - batch.first
    edges = batch.edges
    a, b = np.searchsorted(row, edges.a), np.searchsorted(row, edges.b)
    forest = Forest(len(row))
    is_equal = edges.score == 1
    forest.join(a[is_equal], b[is_equal])
    root = forest.labels()
    is_node = root == np.arange(len(row))
    node = np.flatnonzero(is_node)[np.argsort(component[is_node], kind="stable")]
    place = np.empty(len(row), np.int64)
    place[node] = np.arange(len(node))
    pair = _strongest(edges, place[root[a]], place[root[b]], thresholds=thresholds)
    found: Diameters = diameters(component[node], pair.low, pair.high)
    weakest = _weakest(edges, pair, component=component, a=a, num=num)
    return Health(
        np.bincount(component, minlength=num),
        np.bincount(component[node], minlength=num),
        found.length,
        found.is_exact,
        row[node[found.end_a]],
        row[node[found.end_b]],
        edges.a[weakest],
        edges.b[weakest],
        edges.score[weakest],
        edges.kind[weakest],
    )


@dataclass(frozen=True)
class _Pairs:
    """Pairs of distinct nodes, each once, with the edge that stands for it: the strongest."""

    low: Int64[ndarray, " p"]
    high: Int64[ndarray, " p"]
    edge: Int64[ndarray, " p"]
    strength: Float64[ndarray, " p"]


def _strongest(
    edges: Edges, one: np.ndarray, other: np.ndarray, *, thresholds: Mapping[str, float]
) -> _Pairs:
    low, high = np.minimum(one, other), np.maximum(one, other)
    strengths = strength(edges, thresholds)
    order = np.lexsort((edges.kind, edges.b, edges.a, -strengths, high, low))
    order = order[low[order] != high[order]]
    edge = order[run_starts(low[order], high[order])]
    return _Pairs(low[edge], high[edge], edge, strengths[edge])


def _weakest(
    edges: Edges, pair: _Pairs, *, component: np.ndarray, a: np.ndarray, num: int
) -> Int64[ndarray, " c"]:
    """The edge of every component that is weakest; where all rows are equal, the first of all."""
    weakest = np.empty(num, np.int64)
    equal = np.flatnonzero(edges.score == 1)
    for edge, strengths in ((equal, np.zeros(len(equal))), (pair.edge, pair.strength)):
        order = np.lexsort((edges.b[edge], edges.a[edge], strengths, component[a[edge]]))
        numbers, first = np.unique(component[a[edge[order]]], return_index=True)
        weakest[numbers] = edge[order[first]]
    return weakest


def health_table(
    health: Health,
    *,
    copies: CopyRows,
    members: Likeness,
    ends: Likeness,
    alarm_below: float | None,
) -> pa.Table:
    """Write down the health of every component: `schema.HEALTH`.

    An alarm says that a chain joins images that are not alike: a member and its representative, or the two
    ends of the longest path, are alike by less than `alarm_below` of what makes an edge.

    Args:
        health: what was measured.
        copies: every row of a component.
        members: each of these rows with its representative, compared directly.
        ends: the two ends of each component's longest path, compared directly.
        alarm_below: the least likeness that is none; None: no alarm.
    """
    by_likeness = np.lexsort((copies.row, members.likeness, copies.component))
    _, first = np.unique(copies.component[by_likeness], return_index=True)
    least = by_likeness[first]
    likeness = np.minimum(members.likeness[least], ends.likeness)
    alarm = likeness < (-np.inf if alarm_below is None else alarm_below)
    columns = [
        *(health.size, health.distinct, health.diameter, health.diameter_is_exact),
        *(health.end_a, health.end_b, ends.score),
        *(health.weakest_a, health.weakest_b, health.weakest, kind_column(health.weakest_kind)),
        *(copies.row[least], members.score[least], alarm),
    ]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=schema.HEALTH)
