"""Components over edges in chunks: equal to the whole, to a plain union-find and to scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from curation.dedup import components as module
from curation.dedup.components import Forest


def labels_of(num_rows: int, a: np.ndarray, b: np.ndarray, *, cuts: list[int]) -> np.ndarray:
    forest = Forest(num_rows)
    for left, right in zip(np.split(a, cuts), np.split(b, cuts), strict=True):
        forest.join(left, right)
    return forest.labels()


def by_scipy(num_rows: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(num_rows, num_rows))
    _, number = connected_components(graph, directed=False)
    _, first = np.unique(number, return_index=True)
    return first[number]


def test_by_hand():
    forest = Forest(6)
    forest.join(np.array([4, 5]), np.array([2, 3]))
    assert forest.labels().tolist() == [0, 1, 2, 3, 2, 3]
    forest.join(np.array([2]), np.array([5]))
    assert forest.labels().tolist() == [0, 1, 2, 2, 2, 2]
    forest.join(np.array([3, 1]), np.array([3, 0]))
    assert forest.labels().tolist() == [0, 0, 2, 2, 2, 2]


@given(
    st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40),
    st.lists(st.integers(0, 40), max_size=6),
)
def test_any_cut_into_chunks_gives_the_whole(edges, cuts):
    pairs = np.array(edges, np.int64).reshape(-1, 2)
    expected = by_scipy(30, pairs[:, 0], pairs[:, 1])
    assert labels_of(30, pairs[:, 0], pairs[:, 1], cuts=sorted(cuts)).tolist() == expected.tolist()


@pytest.mark.parametrize("order", ["up", "down", "mixed"])
@pytest.mark.parametrize("shape", ["path", "star", "random"])
def test_shapes_that_are_slow_to_join(shape, order, monkeypatch):
    """Long paths and hubs with the largest number: rounds that grew with them would not end in time."""
    monkeypatch.setattr(module, "_CHUNK_EDGES", 3_000)
    num, rng = 100_000, np.random.default_rng(0)
    a, b = np.arange(num - 1), np.arange(1, num)
    if shape == "star":
        b = np.full(num - 1, num - 1)
    if shape == "random":
        a, b = rng.integers(num, size=(2, num // 2))
    if order == "down":
        a, b = a[::-1], b[::-1]
    if order == "mixed":
        shuffled = rng.permutation(len(a))
        a, b = a[shuffled], b[shuffled]
    got = labels_of(num, a, b, cuts=[10, 50_000])
    assert np.array_equal(got, by_scipy(num, a, b))


def test_nothing():
    assert Forest(0).labels().tolist() == []
    assert Forest(2).labels().tolist() == [0, 1]
