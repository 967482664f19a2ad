import numpy as np

from curation.cluster.seeding import sample_rows


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
