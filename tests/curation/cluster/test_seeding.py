import numpy as np
import pytest

from curation.cluster.seeding import (
    centroids_of,
    draw_seeds,
    nearest_distances,
    num_rounds,
    sample_rows,
    seed_centroids,
)


def unit_vectors(num_rows: int, *, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num_rows, 12))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


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


@pytest.mark.parametrize("cuts", [[], [1, 2, 700], [250, 500, 750]])
def test_rounds_over_groups_give_the_seeds_of_the_whole(cuts: list[int]) -> None:
    sample, k = unit_vectors(1000, seed=0), 600
    groups = np.split(sample, cuts)
    distances, seeds, num_chosen, rounds = np.ones(len(sample)), [], 0, 0
    while num_chosen < k:
        drawn = draw_seeds(distances, sample.__getitem__, num_chosen=num_chosen, num_clusters=k, seed=3)
        nearest = np.concatenate([nearest_distances(group, drawn) for group in groups])
        distances = np.minimum(distances, nearest) if seeds else nearest
        seeds.append(drawn)
        num_chosen, rounds = num_chosen + len(drawn), rounds + 1
    np.testing.assert_array_equal(centroids_of(seeds, k), seed_centroids(sample, k, seed=3))
    assert num_rounds(k) <= rounds <= num_rounds(k) + 5


def test_distances_are_exact() -> None:
    vectors, seeds = unit_vectors(300, seed=1), unit_vectors(40, seed=2)
    expected = (vectors[:, None].astype(np.float64) - seeds[None].astype(np.float64)) ** 2
    found = nearest_distances(vectors, seeds)
    np.testing.assert_array_equal(found, expected.sum(axis=2).min(axis=1))
    assert not nearest_distances(seeds, seeds).any()


def test_no_vector_is_a_seed_twice() -> None:
    sample = unit_vectors(400, seed=4)
    seeds = seed_centroids(sample, 400, seed=0)
    assert len(np.unique(seeds, axis=0)) == 400


def test_where_there_are_fewer_vectors_the_seeds_repeat() -> None:
    sample = np.repeat(unit_vectors(5, seed=5), 30, axis=0)
    seeds = seed_centroids(sample, 12, seed=0)
    assert seeds.shape == (12, 12)
    assert len(np.unique(seeds, axis=0)) == 5


def test_rounds_are_few_however_many_clusters() -> None:
    assert num_rounds(1) == 1
    assert num_rounds(100_000) < 50
    assert num_rounds(1_000_000) < 150
