"""On which rows k-means runs, from how many seeds at a time, and until when."""

import numpy as np
import pytest

from curation.cluster.schedule import (
    Evaluation,
    batch_size,
    is_finished,
    num_rounds,
    sample_rows,
    seeding_rows,
    training_rows,
)


def test_rows_are_drawn_evenly_in_order_and_by_the_seed():
    drawn = sample_rows(1000, 50, seed=1)
    assert drawn.shape == (50,)
    assert (drawn // 20 == np.arange(50)).all()
    assert drawn.tolist() == sample_rows(1000, 50, seed=1).tolist()
    assert drawn.tolist() != sample_rows(1000, 50, seed=2).tolist()


def test_every_row_is_as_likely():
    counts = np.bincount(np.concatenate([sample_rows(10, 3, seed=s) for s in range(3000)]), minlength=10)
    # Runs of 3, 3 and 4 rows: a third or a quarter of 3,000 draws, five standard deviations about it.
    expected = np.repeat([1000, 1000, 750], [3, 3, 4])
    assert (abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_all_rows_where_no_fewer_are_wanted():
    assert sample_rows(7, 7, seed=0).tolist() == sample_rows(7, 100, seed=0).tolist() == list(range(7))


def test_rows_to_train_on_and_to_draw_seeds_from():
    every = training_rows(100, 3, max_points_per_centroid=None, seed=0)
    np.testing.assert_array_equal(every, np.arange(100))
    assert len(training_rows(100, 3, max_points_per_centroid=10, seed=0)) == 30
    assert len(seeding_rows(100, 3, seed=0)) == 48
    assert len(seeding_rows(40, 3, seed=0)) == 40


def test_rounds_are_few_however_many_clusters() -> None:
    assert num_rounds(1) == 1
    assert num_rounds(100_000) < 50
    assert num_rounds(1_000_000) < 150


def test_a_batch_is_no_larger_than_what_was_chosen_nor_than_what_is_left():
    assert [batch_size(chosen, 100_000) for chosen in (0, 1, 8, 50_000, 99_999)] == [1, 1, 8, 3125, 1]


@pytest.mark.parametrize(
    ("inertia", "num_empty", "is_over"),
    [
        ([], 0, False),
        ([9.0], 0, False),
        ([9.0, 8.0], 0, False),
        ([9.0, 8.0, 8.0], 0, True),
        ([9.0, 8.0, 8.0], 1, False),  # what was re-seeded has not settled yet
        ([9.0, 8.0, 7.9], 0, False),
        ([9.0, 8.0, 7.0, 6.0, 5.0], 0, True),  # more than the iterations asked for
    ],
)
def test_it_is_done_when_it_has_settled_or_the_iterations_are_over(
    inertia: list[float], num_empty: int, *, is_over: bool
) -> None:
    history = [Evaluation(one, num_empty) for one in inertia]
    assert is_finished(history, iterations=4, tolerance=0.0) is is_over
    assert is_finished(history[:3], iterations=4, tolerance=0.2) is (len(inertia) > 1 and not num_empty)
