"""Sums that follow the rows which change their cluster are the sums of all rows, to the bit."""

import numpy as np
import pytest

from curation.cluster import blocks
from curation.cluster.assignment import Desk
from curation.cluster.kmeans import update_centroids
from curation.cluster.seeding import seed_centroids
from curation.cluster.sums import RunningSums, add_sums, sum_arrays

pytestmark = pytest.mark.usefixtures("arithmetic")


def draw_vectors(num_rows: int, dim: int, *, num_concepts: int, spread: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    concepts = rng.standard_normal((num_concepts, dim))
    vectors = concepts[rng.integers(num_concepts, size=num_rows)]
    vectors = vectors + spread * rng.standard_normal((num_rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def test_sums_by_hand() -> None:
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float16)
    found = sum_arrays([vectors], np.eye(2, dtype=np.float32))
    assert found.counts.tolist() == [1, 2]
    np.testing.assert_array_equal(found.sums, [[1, 0], vectors[1:].astype(np.float64).sum(axis=0)])


@pytest.mark.parametrize(
    ("spread", "codes_bytes", "num_clusters"),
    [(0.5, 1 << 30, 40), (3.0, 1 << 30, 40), (0.5, 0, 7), (0.5, 40_000, 200)],
)
def test_running_sums_are_those_of_all_rows(
    spread: float, codes_bytes: int, num_clusters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 300)
    vectors = draw_vectors(3000, 32, num_concepts=30, spread=spread, seed=0)
    arrays = np.split(vectors, [700, 1900])
    running = RunningSums(lambda: iter(arrays), len(vectors), codes_bytes=codes_bytes)
    num_assigned = count_assigned(monkeypatch)
    centroids = seed_centroids(vectors, num_clusters, seed=1)
    shares = []
    for _ in range(14):
        num_assigned.clear()
        found = running.under(centroids)
        shares.append(sum(num_assigned) / len(vectors))
        expected = sum_arrays(arrays, centroids)
        np.testing.assert_array_equal(found.sums, expected.sums)
        np.testing.assert_array_equal(found.counts, expected.counts)
        centroids = update_centroids(centroids, found.sums, counts=found.counts)
    if spread < 1:
        assert shares[-1] < 0.8, "rows that cannot have changed are passed by"


def count_assigned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every call of `Desk.assign` from now on."""
    counts: list[int] = []
    assign = Desk.assign

    def counted(self: Desk, vectors: np.ndarray, codes: object, rows: np.ndarray | None = None) -> object:
        counts.append(len(vectors) if rows is None else len(rows))
        return assign(self, vectors, codes, rows)

    monkeypatch.setattr(Desk, "assign", counted)
    return counts


def test_centroids_may_jump() -> None:
    """An empty cluster is re-seeded far away: nothing that was known of it holds any more."""
    vectors = draw_vectors(1000, 16, num_concepts=8, spread=0.3, seed=2)
    running = RunningSums(lambda: [vectors], len(vectors))
    rng = np.random.default_rng(3)
    centroids = seed_centroids(vectors, 12, seed=0)
    for _ in range(8):
        found = running.under(centroids)
        np.testing.assert_array_equal(found.sums, sum_arrays([vectors], centroids).sums)
        centroids = centroids.copy()
        centroids[rng.integers(12)] = seed_centroids(vectors, 1, seed=int(rng.integers(1000)))[0]


def test_parts_add_up_in_any_cut() -> None:
    vectors = draw_vectors(500, 16, num_concepts=5, spread=0.5, seed=4)
    centroids = seed_centroids(vectors, 6, seed=0)
    whole = sum_arrays([vectors], centroids)
    added = add_sums(sum_arrays([rows], centroids) for rows in np.split(vectors, [1, 77, 400]))
    np.testing.assert_array_equal(added.sums, whole.sums)
    np.testing.assert_array_equal(added.counts, whole.counts)


@pytest.mark.parametrize(("num_rows", "dim", "num_clusters"), [(1, 1, 1), (1, 8, 1), (9, 1, 2), (9, 8, 9)])
def test_few_rows_clusters_and_columns(num_rows: int, dim: int, num_clusters: int) -> None:
    vectors = draw_vectors(num_rows, dim, num_concepts=2, spread=0.5, seed=5)
    nobody = vectors[:0]
    running = RunningSums(lambda: [nobody, vectors, nobody], num_rows)
    centroids = seed_centroids(vectors, num_clusters, seed=0)
    for _ in range(4):
        found, expected = running.under(centroids), sum_arrays([vectors], centroids)
        np.testing.assert_array_equal(found.sums, expected.sums)
        np.testing.assert_array_equal(found.counts, expected.counts)
        centroids = update_centroids(centroids, found.sums, counts=found.counts)
    assert not sum_arrays([nobody], centroids).sums.any()
