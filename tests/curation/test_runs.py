"""Runs of equal values: where each begins, and each element's place in its own."""

import numpy as np
import pytest

from curation.runs import place_in_run, run_starts


@pytest.mark.parametrize(
    ("values", "starts", "places"),
    [([], [], []), ([5], [0], [0]), ([0, 0, 3, 4, 4, 4], [0, 2, 3], [0, 1, 0, 0, 1, 2])],
)
def test_by_hand(values: list[int], starts: list[int], places: list[int]) -> None:
    array = np.array(values, np.int32)
    assert run_starts(array).tolist() == starts
    assert run_starts(array.astype(np.int64)).tolist() == starts
    assert place_in_run(array).tolist() == places
