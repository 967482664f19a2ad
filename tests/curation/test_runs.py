"""Runs of equal values, and of items that close once they are large enough."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curation.runs import batches, place_in_run, places_of_runs, run_starts


def test_by_hand() -> None:
    values = np.array([3, 3, 5, 5, 5, 9])
    assert run_starts(values).tolist() == [True, False, True, False, False, True]
    assert run_starts(values, np.array([0, 1, 1, 1, 2, 2])).tolist() == [True, True, True, False, True, True]
    assert place_in_run(values).tolist() == [0, 1, 0, 1, 2, 0]
    assert places_of_runs(np.array([4, 0, 2]), np.array([2, 0, 3])).tolist() == [4, 5, 2, 3, 4]


@given(st.lists(st.integers(-3, 3), max_size=20))
def test_they_go_together(values: list[int]) -> None:
    array = np.sort(np.array(values, np.int64))
    starts = np.flatnonzero(run_starts(array))
    sizes = np.diff(starts, append=len(array))
    assert places_of_runs(starts, sizes).tolist() == list(range(len(array)))
    assert place_in_run(array).tolist() == [i for size in sizes.tolist() for i in range(size)]


def test_a_run_closes_once_it_is_large_enough():
    items = ["a", "", "bb", "c", "", "dddd", ""]
    assert list(batches(items, size=len, least=3)) == [["a", "", "bb"], ["c", "", "dddd"], [""]]
    assert list(batches([], size=len, least=3)) == []
