"""The longest shortest path of every component of a graph, and two nodes between which it lies."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt64
from numpy import ndarray

from curation.runs import places_of_runs, run_starts

# Up to so many nodes the diameter is exact: all nodes are searched from at once, a bit for each.
MAX_EXACT_NODES = 1000
_WORD = 64


@dataclass(frozen=True)
class Diameters:
    """For every component: edges of its longest shortest path, whether that is sure, and the path's two ends.

    Where it is not exact it is a lower bound.
    """

    length: Int64[ndarray, " c"]
    is_exact: Bool[ndarray, " c"]
    end_a: Int64[ndarray, " c"]  # a < b, or a = b where a component has one node
    end_b: Int64[ndarray, " c"]


@dataclass(frozen=True)
class _Graph:
    """Directed edges, both ways, sorted by source, then target."""

    source: Int64[ndarray, " m"]
    target: Int64[ndarray, " m"]


def diameters(component: Int64[ndarray, " n"], a: Int64[ndarray, " e"], b: Int64[ndarray, " e"]) -> Diameters:
    """Measure every component.

    Args:
        component: int64 (n,), the component of every node, ascending, every number from 0 on taken.
        a: int64 (e,), edges within components, each pair once.
        b: see `a`.

    Returns:
        Exact up to `MAX_EXACT_NODES` nodes; the ends are then the first pair, by node, that lies so far
        apart. Above, by a double sweep: from the component's first node to the farthest node, and from there
        to the farthest, a lower bound that is exact on trees.

    Source: Magnien, Latapy and Habib, J. Exp. Algorithmics 13 (2009): the double sweep.
    """
    starts = np.flatnonzero(run_starts(component))
    size = np.diff(np.r_[starts, len(component)])
    found = Diameters(np.zeros(len(size), np.int64), size <= MAX_EXACT_NODES, starts.copy(), starts.copy())
    source, target = np.concatenate([a, b]), np.concatenate([b, a])
    order = np.lexsort((target, source))
    graph = _Graph(source[order], target[order])
    # Components of like size go together, so that a set of bits is at most twice as wide as it need be.
    width = 1
    while width // 2 * _WORD < MAX_EXACT_NODES:
        fits = found.is_exact & (size <= width * _WORD) & (size > width // 2 * _WORD)
        _search_all(found, fits, graph, component=component, starts=starts)
        width *= 2
    for number in np.flatnonzero(~found.is_exact).tolist():
        _double_sweep(found, number, graph, first=int(starts[number]), num=int(size[number]))
    return found


def _search_all(
    found: Diameters, fits: np.ndarray, graph: _Graph, *, component: np.ndarray, starts: np.ndarray
) -> None:
    """Search from all nodes at once: a node's bits are the nodes of its component within so many edges."""
    node = np.flatnonzero(fits[component])
    if not len(node):
        return
    edge = np.flatnonzero(fits[component[graph.source]])
    source, target = graph.source[edge], graph.target[edge]
    bit = node - starts[component[node]]
    near = np.zeros((len(node), bit.max() // _WORD + 1), np.uint64)
    near[np.arange(len(node)), bit // _WORD] = np.left_shift(np.uint64(1), (bit % _WORD).astype(np.uint64))
    while len(source):
        wider = _widened(near, node, source, target)
        news = wider & ~near
        grown = np.flatnonzero(news.any(axis=1))
        numbers, first = np.unique(component[node[grown]], return_index=True)
        found.length[numbers] += 1
        found.end_a[numbers] = node[grown[first]]
        found.end_b[numbers] = starts[numbers] + _lowest_bit(news[grown[first]])
        goes_on = np.zeros(len(starts), bool)
        goes_on[numbers] = True
        stay = goes_on[component[node]]
        node, near = node[stay], wider[stay]
        stay = goes_on[component[source]]
        source, target = source[stay], target[stay]


def _widened(
    near: UInt64[ndarray, "k w"], node: np.ndarray, source: np.ndarray, target: np.ndarray
) -> UInt64[ndarray, "k w"]:
    """What lies one edge further."""
    wider = near.copy()
    at = np.searchsorted(node, target)
    starts = np.flatnonzero(run_starts(source))
    of = np.searchsorted(node, source[starts])
    for word in range(near.shape[1]):  # a word at a time: 8 bytes an edge, however wide the sets
        wider[of, word] |= np.bitwise_or.reduceat(near[at, word], starts)
    return wider


def _lowest_bit(sets: UInt64[ndarray, "k w"]) -> Int64[ndarray, " k"]:
    """The number of the lowest bit of every set; none is empty."""
    word = (sets != 0).argmax(axis=1)
    bits = sets[np.arange(len(sets)), word]
    return np.asarray(word * _WORD + np.bitwise_count((bits & (~bits + np.uint64(1))) - np.uint64(1)))


def _double_sweep(found: Diameters, number: int, graph: _Graph, *, first: int, num: int) -> None:
    begin, end = np.searchsorted(graph.source, [first, first + num])
    source, target = graph.source[begin:end] - first, graph.target[begin:end] - first
    pointers = np.searchsorted(source, np.arange(num + 1))
    one, _ = _farthest(pointers, target, start=0)
    other, length = _farthest(pointers, target, start=one)
    found.length[number] = length
    found.end_a[number], found.end_b[number] = first + min(one, other), first + max(one, other)


def _farthest(pointers: np.ndarray, target: np.ndarray, *, start: int) -> tuple[int, int]:
    """The first of the nodes that lie farthest from `start`, and how far."""
    is_new = np.ones(len(pointers) - 1, bool)
    is_new[start] = False
    front, distance = np.array([start]), 0
    while True:
        sizes = pointers[front + 1] - pointers[front]
        reached = target[places_of_runs(pointers[front], sizes)]
        reached = np.unique(reached[is_new[reached]])
        if not len(reached):
            return int(front[0]), distance
        is_new[reached] = False
        front, distance = reached, distance + 1
