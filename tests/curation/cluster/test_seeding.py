import numpy as np
import pytest

from curation.cluster.schedule import num_rounds
from curation.cluster.seeding import (
    centroids_of,
    draw_seeds,
    nearest_distances,
    seed_centroids,
    to_unit_length,
)


def unit_vectors(num_rows: int, *, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num_rows, 12))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


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


def test_nothing_and_next_to_nothing() -> None:
    sample = unit_vectors(3, seed=6)
    nobody = sample[:0]
    assert np.isinf(nearest_distances(sample, nobody)).all()
    assert len(nearest_distances(nobody, sample)) == 0
    drawn = draw_seeds(np.zeros(0), nobody.__getitem__, num_chosen=0, num_clusters=1, seed=0)
    assert drawn.shape == (0, 12)
    np.testing.assert_array_equal(
        seed_centroids(sample[:1], 1, seed=0), to_unit_length(sample[:1].astype(np.float64))
    )
    assert seed_centroids(np.array([[1], [-1]], np.float16), 2, seed=0).shape == (2, 1)


def test_seeds_are_drawn_by_squared_distance():
    # Two far points and a crowd: after a first seed in the crowd, plain k-means++ takes a far one next.
    vectors = np.array([[1, 0, 0]] * 98 + [[0, 1, 0], [0, 0, 1]], np.float16)
    for seed in range(20):
        seeds = seed_centroids(vectors, 3, seed=seed)
        assert sorted(map(tuple, seeds.tolist())) == [(0, 0, 1), (0, 1, 0), (1, 0, 0)]
    # Squared distances from (1, 0) are 2 and 4, so the second seed is the opposite point 2 times of 3.
    plane = np.array([[1, 0], [0, 1], [-1, 0]], np.float16)
    runs = [seed_centroids(plane, 2, seed=seed).tolist() for seed in range(2000)]
    from_first = [second for first, second in runs if first == [1, 0]]
    share = np.mean([second == [-1, 0] for second in from_first])
    assert share == pytest.approx(2 / 3, abs=0.06)


def test_batches_of_draws_have_the_distribution_of_single_draws():
    # Four groups of which three lie apart: drawn one at a time, the first four seeds are almost always
    # of four groups; a batch without rejection would often take two of one.
    rng = np.random.default_rng(0)
    corners = np.eye(8)[np.repeat(np.arange(8), 50)] + 0.001 * rng.standard_normal((400, 8))
    vectors = (corners / np.linalg.norm(corners, axis=1, keepdims=True)).astype(np.float16)
    for seed in range(20):
        groups = seed_centroids(vectors, 8, seed=seed).argmax(axis=1)
        assert len(set(groups.tolist())) == 8
