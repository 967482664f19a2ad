"""Chains fall apart until members are alike to their representatives."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup import cut as cut_module
from curation.dedup.components import components
from curation.dedup.cut import cut_chains


def cut(places: list[int], edges: list[tuple[int, int]], rank: list[int], *, reach: int) -> list[int]:
    """Rows at places on a line; those within reach are alike."""
    at = np.array(places)
    ends = np.array(edges, np.int64).reshape(-1, 2)

    def is_alike(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        return np.abs(at[rows] - at[others]) <= reach

    return cut_chains(np.array(rank), ends[:, 0], ends[:, 1], is_alike=is_alike).tolist()


CHAIN = [(i, i + 1) for i in range(5)]


def test_a_chain_by_hand():
    assert cut([0, 1, 2, 3, 4, 5], CHAIN, [0, 1, 2, 3, 4, 5], reach=2) == [0, 0, 0, 3, 3, 3]
    assert cut([0, 1, 2, 3, 4, 5], CHAIN, [0, 1, 2, 3, 4, 5], reach=5) == [0] * 6
    # From the middle: 2 keeps 1 to 3; of the rest 0 stands alone, and 4 and 5 stay together.
    assert cut([0, 1, 2, 3, 4, 5], CHAIN, [3, 2, 0, 1, 4, 5], reach=1) == [0, 1, 1, 1, 4, 4]


def test_two_groups_with_one_bridge_by_hand():
    places = [0, 1, 2, 10, 11, 12]
    edges = [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (4, 5), (3, 5)]
    assert cut(places, edges, [5, 4, 3, 2, 1, 0], reach=3) == [0, 0, 0, 3, 3, 3]


def test_what_is_alike_but_out_of_reach_leaves():
    # 3 came back to where 0 is, by way of 1 and 2 that are far off: no edge among alike rows leads there.
    assert cut([0, 9, 9, 0], [(0, 1), (1, 2), (2, 3)], [0, 1, 2, 3], reach=2) == [0, 1, 1, 3]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_pieces_are_well_and_connected(data):
    num = data.draw(st.integers(1, 14))
    pairs = st.tuples(st.integers(0, num - 1), st.integers(0, num - 1))
    edges = data.draw(st.lists(pairs, max_size=30))
    rank = data.draw(st.permutations(range(num)))
    places = data.draw(st.lists(st.integers(0, 60), min_size=num, max_size=num))
    reach = data.draw(st.integers(0, 40))
    labels = cut(places, edges, rank, reach=reach)
    assert labels == naive(places, edges, rank, reach=reach)
    for label in set(labels):
        members = [row for row in range(num) if labels[row] == label]
        leader = min(members, key=lambda row: rank[row])
        assert label == min(members)
        assert all(abs(places[row] - places[leader]) <= reach for row in members)
        inside = np.array([e for e in edges if {*e} <= set(members)], np.int64).reshape(-1, 2)
        assert set(components(num, inside[:, 0], inside[:, 1])[members].tolist()) == {label}


def naive(places: list[int], edges: list[tuple[int, int]], rank: list[int], *, reach: int) -> list[int]:
    return by_the_rule(rank, edges, is_alike=lambda row, leader: abs(places[row] - places[leader]) <= reach)


def by_the_rule(
    rank: list[int], edges: list[tuple[int, int]], *, is_alike: Callable[[int, int], bool]
) -> list[int]:
    """The rule as it is written down, a component at a time."""
    labels = list(range(len(rank)))
    waiting = [set(range(len(rank)))]
    while waiting:
        rows = waiting.pop()
        if not rows:
            continue
        leader = min(rows, key=lambda row: rank[row])
        component = spread(leader, rows, edges)
        alike = {row for row in component if row == leader or is_alike(row, leader)}
        piece = spread(leader, alike, edges)
        for row in piece:
            labels[row] = min(piece)
        waiting += [rows - component, component - piece]
    return labels


def spread(start: int, rows: set[int], edges: list[tuple[int, int]]) -> set[int]:
    found = {start}
    while more := {row for e in edges if found & {*e} and {*e} <= rows for row in e} - found:
        found |= more
    return found


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num=st.integers(2, 60),
    degree=st.sampled_from([1, 2, 5]),
    share=st.sampled_from([0.1, 0.5, 0.9]),
    allowance=st.sampled_from([0, 10, 10_000]),
)
def test_equals_the_rule_for_any_likeness_and_however_many_ask_at_once(seed, num, degree, share, allowance):
    """Likeness need not be a distance: any relation that is the same both ways."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(num, size=(2, degree * num))
    alike = rng.random((num, num)) < share
    alike |= alike.T
    rank = rng.permutation(num)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cut_module, "_FIRST_ALLOWANCE", allowance)
        found = cut_chains(rank, a, b, is_alike=lambda rows, others: alike[rows, others])
    edges = list(zip(a.tolist(), b.tolist(), strict=True))
    expected = by_the_rule(rank.tolist(), edges, is_alike=lambda row, leader: bool(alike[row, leader]))
    assert found.tolist() == expected


@pytest.mark.parametrize("kind", ["pairs", "path of equals", "path", "crowd that one row takes", "tree"])
def test_the_work_follows_the_edges(kind):
    """Comparisons grow with the edges, and come in few batches."""
    asked = {}
    for num in (1000, 4000):
        rng = np.random.default_rng(0)
        rank = rng.permutation(num)
        bucket = np.arange(num) // 2
        match kind:
            case "pairs":
                a, b = rng.integers(num, size=(2, 10 * num))
            case "path" | "path of equals":
                a, b = np.arange(num - 1), np.arange(1, num)
                bucket = bucket * 0 if kind == "path of equals" else np.arange(num) // 10
            case "crowd that one row takes":
                a, b = rng.integers(num, size=(2, 10 * num))
                bucket = np.where(np.arange(num) % 10 == 0, np.arange(num), -1)
            case "tree":
                a, b = np.arange(1, num) // 2, np.arange(1, num)
        sizes = []

        def is_alike(rows, others, bucket=bucket, sizes=sizes):
            sizes.append(len(rows))
            return bucket[rows] == bucket[others]

        labels = cut_chains(rank, a, b, is_alike=is_alike)
        assert (bucket[labels] == bucket).all()
        asked[num] = sum(sizes)
        assert asked[num] <= 8 * len(a) + 2 * cut_module._FIRST_ALLOWANCE
        if kind == "pairs":
            assert len(sizes) < 100
    assert asked[4000] < 6 * asked[1000]


def test_a_large_star_of_unlike_rows():
    num = 100_000
    rows = np.arange(num)
    labels = cut_chains(
        rows, np.zeros(num - 1, np.int64), rows[1:], is_alike=lambda rows, others: rows - others <= 100
    )
    assert np.bincount(labels)[0] == 101
    assert len(np.unique(labels)) == num - 100


def test_nothing():
    none = np.zeros(0, np.int64)
    assert cut_chains(np.arange(2), none, none, is_alike=lambda rows, others: rows > others).tolist() == [
        0,
        1,
    ]
