"""Diameters against scipy's shortest paths, and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import shortest_path

from curation.dedup import diameter as module
from curation.dedup.components import components
from curation.dedup.diameter import Diameters, diameters


def grouped(num: int, edges: set[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes renumbered so that components are runs; their components, and the edges."""
    pairs = np.array(sorted(edges), np.int64).reshape(-1, 2)
    label = components(num, pairs[:, 0], pairs[:, 1])
    order = np.argsort(label, kind="stable")
    place = np.empty(num, np.int64)
    place[order] = np.arange(num)
    _, number = np.unique(label[order], return_inverse=True)
    a, b = place[pairs[:, 0]], place[pairs[:, 1]]
    return number.astype(np.int64), np.minimum(a, b), np.maximum(a, b)


def reference(component: np.ndarray, a: np.ndarray, b: np.ndarray) -> list[tuple[int, int, int]]:
    graph = coo_array((np.ones(len(a)), (a, b)), shape=(len(component), len(component)))
    apart = shortest_path(graph.tocsr(), directed=False, unweighted=True)
    apart[np.isinf(apart)] = -1
    expected = []
    for number in np.unique(component):
        nodes = np.flatnonzero(component == number)
        inside = apart[np.ix_(nodes, nodes)]
        i, j = np.unravel_index(inside.argmax(), inside.shape)
        expected.append((int(inside.max()), int(nodes[i]), int(nodes[j])))
    return expected


def triples(found: Diameters) -> list[tuple[int, int, int]]:
    return list(zip(found.length.tolist(), found.end_a.tolist(), found.end_b.tolist(), strict=True))


def test_by_hand():
    # A path of four, a triangle, a lone node, a star of four.
    component = np.array([0, 0, 0, 0, 1, 1, 1, 2, 3, 3, 3, 3])
    a = np.array([0, 1, 0, 4, 4, 5, 8, 8, 8])
    b = np.array([2, 3, 3, 5, 6, 6, 9, 10, 11])
    found = diameters(component, a, b)
    assert triples(found) == [(3, 1, 2), (1, 4, 5), (0, 7, 7), (2, 9, 10)]
    assert found.is_exact.all()


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 40),
    st.sets(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=60),
    st.sampled_from([2, 5, 1000]),
)
def test_equals_shortest_paths_and_bounds_above_the_limit(num, edges, limit):
    edges = {(min(x, y), max(x, y)) for x, y in edges if x != y and max(x, y) < num}
    component, a, b = grouped(num, edges)
    expected = reference(component, a, b)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_EXACT_NODES", limit)
        found = diameters(component, a, b)
    size = np.bincount(component)
    assert found.is_exact.tolist() == (size <= limit).tolist()
    for got, want, is_exact in zip(triples(found), expected, found.is_exact, strict=True):
        if is_exact:
            assert got == want
        else:
            assert (want[0] + 1) // 2 <= got[0] <= want[0]


@pytest.mark.parametrize("num", [63, 64, 65, 700, 1000, 1001, 5000])
def test_paths_of_every_width(num):
    order = np.random.default_rng(num).permutation(num)
    a, b = np.minimum(order[1:], order[:-1]), np.maximum(order[1:], order[:-1])
    found = diameters(np.zeros(num, np.int64), a, b)
    ends = sorted(order[[0, -1]].tolist())
    assert triples(found) == [(num - 1, *ends)]  # a double sweep is exact on trees
    assert found.is_exact.tolist() == [num <= 1000]


def test_many_small_components_at_once():
    num = 20_000
    rng = np.random.default_rng(0)
    component = np.repeat(np.arange(num), 3)
    first = 3 * np.arange(num)
    is_triangle = rng.random(num) < 0.5
    a = np.concatenate([first, first, first[is_triangle] + 1])
    b = np.concatenate([first + 1, first + 2, first[is_triangle] + 2])
    found = diameters(component, a, b)
    assert found.length.tolist() == np.where(is_triangle, 1, 2).tolist()


def test_nothing():
    none = np.zeros(0, np.int64)
    assert len(diameters(none, none, none).length) == 0
