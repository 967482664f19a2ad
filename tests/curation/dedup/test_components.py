"""Components, representatives and their scores."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curation import schema
from curation.dedup.components import (
    choose_representatives,
    components,
    copies_table,
)

EDGES = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30)


def ends(edges: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.array(edges, np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def union_find(num_rows: int, edges: list[tuple[int, int]]) -> list[int]:
    parent = list(range(num_rows))

    def root(row: int) -> int:
        while parent[row] != row:
            row = parent[row]
        return row

    for a, b in edges:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return [root(row) for row in range(num_rows)]


def test_by_hand():
    a, b = ends([(4, 2), (2, 0), (5, 6)])
    labels = components(7, a, b)
    assert labels.tolist() == [0, 1, 0, 3, 0, 5, 5]
    copies = choose_representatives(labels, np.array([3, 0, 4, 6, 5, 2, 1]))
    assert copies.row.tolist() == [0, 2, 4, 5, 6]
    assert copies.representative.tolist() == [0, 0, 0, 6, 6]
    assert copies.component.tolist() == [0, 0, 0, 1, 1]
    table = copies_table(
        copies,
        is_exact=np.array([True, False, True, False, True]),
        scores=np.array([1.0, 0.9, 1.0, 0.8, 0.5]),
    )
    assert table.schema == schema.COPIES
    assert table["reason"].to_pylist() == [None, "near_copy", "exact_copy", "near_copy", None]
    assert table["score"].to_pylist() == [1.0, 0.9, 1.0, 0.8, 1.0]


def test_components_are_numbered_by_representative():
    a, b = ends([(0, 5), (1, 2)])
    copies = choose_representatives(components(6, a, b), np.array([5, 4, 3, 2, 1, 0]))
    # 5 represents {0, 5} and 2 represents {1, 2}, so {1, 2} comes first.
    assert copies.row.tolist() == [0, 1, 2, 5]
    assert copies.component.tolist() == [1, 0, 0, 1]


@given(EDGES, st.randoms(use_true_random=False))
def test_equals_union_find_in_any_order(edges, random):
    expected = union_find(20, edges)
    shuffled = [(b, a) for a, b in random.sample(edges, len(edges))]
    for order in (edges, shuffled):
        assert components(20, *ends(order)).tolist() == expected
    copies = choose_representatives(components(20, *ends(edges)), np.arange(20))
    grouped = [row for row in range(20) if expected.count(expected[row]) > 1]
    assert copies.row.tolist() == grouped
    assert copies.representative.tolist() == [expected[row] for row in grouped]


def test_nothing():
    none = np.zeros(0, np.int64)
    copies = choose_representatives(components(3, none, none), np.arange(3))
    assert len(copies.row) == 0
    assert len(choose_representatives(components(0, none, none), none).row) == 0
    assert copies_table(copies, is_exact=np.zeros(0, bool), scores=np.zeros(0)).schema == schema.COPIES
