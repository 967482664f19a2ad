import faiss
import numpy as np
import pytest
from arithmetic import ARITHMETICS, forced

from curation.cluster import blocks
from curation.cluster.config import ClusterConfig, default_num_clusters
from curation.cluster.kmeans import (
    assign,
    kmeans,
    update_centroids,
)
from curation.cluster.seeding import seed_centroids
from curation.cluster.sums import sum_arrays
from curation.errors import ConfigError

pytestmark = pytest.mark.usefixtures("arithmetic")


def draw_vectors(num_rows: int, dim: int, *, num_concepts: int, seed: int, spread: float = 0.6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    concepts = rng.standard_normal((num_concepts, dim))
    vectors = concepts[rng.integers(num_concepts, size=num_rows)]
    vectors = vectors + spread * rng.standard_normal((num_rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def in_parts(vectors: np.ndarray, *cuts: int) -> list:
    return [lambda part=part: part for part in np.split(vectors, cuts)]


def exact_products(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    return vectors.astype(np.float64) @ centroids.astype(np.float64).T


def lone_last_row(seed: int, *, num_rows: int, dim: int) -> np.ndarray:
    """Vectors of which the last has its own direction, and so soon a centroid of its own."""
    vectors = np.random.default_rng(seed).standard_normal((num_rows, dim))
    vectors[-1] = np.eye(dim)[0]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


@pytest.mark.parametrize(
    ("num_rows", "block_rows", "num_clusters", "dim"), [(2049, 2048, 40, 64), (65, 64, 8, 8)]
)
def test_a_block_may_have_no_row_left_to_look_at(num_rows, block_rows, num_clusters, dim, monkeypatch):
    """What lies in a block of its own, next to its own centroid, is not looked at again."""
    monkeypatch.setattr(blocks, "BLOCK_ROWS", block_rows)
    for seed in range(3):
        vectors = lone_last_row(seed, num_rows=num_rows, dim=dim)
        found = kmeans(in_parts(vectors), num_clusters=num_clusters, seed=seed)
        cluster, _ = assign(vectors, found.centroids)
        np.testing.assert_array_equal(cluster, exact_products(vectors, found.centroids).argmax(axis=1))
        assert found.sizes.sum() == num_rows


@pytest.mark.parametrize("dim", [1, 2, 16])
@pytest.mark.parametrize("num_rows", [1, 2, 33])
def test_few_rows_clusters_and_columns(num_rows, dim):
    vectors = draw_vectors(num_rows, dim, num_concepts=3, seed=num_rows)
    for num_clusters in {1, 2, num_rows} & set(range(num_rows + 1)):
        whole = kmeans(in_parts(vectors), num_clusters=num_clusters, seed=1)
        assert whole.sizes.sum() == num_rows
        for cuts in ((0,), (num_rows,), (num_rows // 2, num_rows // 2)):  # parts without a row
            cut = kmeans(in_parts(vectors, *cuts), num_clusters=num_clusters, seed=1)
            np.testing.assert_array_equal(cut.centroids, whole.centroids)
        cluster, _ = assign(vectors, whole.centroids)
        np.testing.assert_array_equal(cluster, exact_products(vectors, whole.centroids).argmax(axis=1))
        nobody, no_score = assign(vectors[:0], whole.centroids)
        assert (len(nobody), len(no_score)) == (0, 0)


def test_nobody_cannot_be_clustered():
    with pytest.raises(ConfigError, match="num_clusters=1 for 0 vectors"):
        kmeans(in_parts(np.zeros((0, 4), np.float16)), num_clusters=1, seed=0)


def test_every_arithmetic_gives_the_same_bits():
    vectors = draw_vectors(900, 24, num_concepts=12, seed=13)
    found = kmeans(in_parts(vectors, 1, 400), num_clusters=15, seed=2)
    for other in ARITHMETICS:
        with forced(other):
            again = kmeans(in_parts(vectors), num_clusters=15, seed=2)
        np.testing.assert_array_equal(again.centroids, found.centroids)
        np.testing.assert_array_equal(again.inertia, found.inertia)


def test_two_clusters_by_hand():
    vectors = np.array([[1, 0], [0.8, 0.6], [-1, 0], [-0.6, 0.8]], np.float16)
    centroids = np.array([[1, 0], [-1, 0]], np.float32)
    cluster, score = assign(vectors, centroids)
    assert cluster.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(score, [1, 0.8, 1, 0.6], atol=1e-3)
    part = sum_arrays([vectors], centroids)
    assert part.counts.tolist() == [2, 2]
    np.testing.assert_allclose(part.sums, [[1.8, 0.6], [-1.6, 0.8]], atol=1e-3)
    updated = update_centroids(centroids, part.sums, counts=part.counts)
    np.testing.assert_allclose(updated, [[3 / 10**0.5, 1 / 10**0.5], [-2 / 5**0.5, 1 / 5**0.5]], atol=1e-3)


def test_assignment_is_the_exact_argmax():
    vectors = draw_vectors(9000, 48, num_concepts=30, seed=0)
    centroids = seed_centroids(vectors, 700, seed=1)
    cluster, score = assign(vectors, centroids)
    products = exact_products(vectors, centroids)
    np.testing.assert_array_equal(cluster, products.argmax(axis=1))
    np.testing.assert_allclose(score, products.max(axis=1), rtol=1e-6)


def test_near_ties_are_decided_in_fp64_and_ties_go_to_the_lowest_cluster():
    vectors = draw_vectors(500, 64, num_concepts=5, seed=0)
    base = seed_centroids(vectors, 5, seed=0)
    rng = np.random.default_rng(0)
    # Ten copies of each centroid, all but one of them apart by less than an fp32 product can tell.
    twins = np.concatenate(
        [base] + [base + rng.normal(0, 2e-8, base.shape).astype(np.float32) for _ in range(8)]
    )
    centroids = np.concatenate([twins, base])
    cluster, _ = assign(vectors, centroids)
    np.testing.assert_array_equal(cluster, exact_products(vectors, centroids).argmax(axis=1))
    assert cluster.max() < len(twins), "an equal centroid further down never wins"


def test_a_row_does_not_depend_on_its_neighbours():
    vectors = draw_vectors(5000, 32, num_concepts=10, seed=3)
    centroids = seed_centroids(vectors, 50, seed=0)
    cluster, score = assign(vectors, centroids)
    for rows in (slice(0, 1), slice(4095, 4099), slice(17, 4500)):
        part_cluster, part_score = assign(vectors[rows], centroids)
        np.testing.assert_array_equal(part_cluster, cluster[rows])
        np.testing.assert_array_equal(part_score, score[rows])


def test_inertia_matches_faiss():
    vectors = draw_vectors(6000, 32, num_concepts=60, seed=5)
    wide = vectors.astype(np.float32)
    ours, theirs = [], []
    for seed in range(5):  # one run alone ends in a local optimum that is 2 % better or worse than another's
        result = kmeans(in_parts(vectors, 1000, 1001, 4000), num_clusters=40, seed=seed)
        reference = faiss.Kmeans(
            32, 40, niter=20, spherical=True, seed=seed + 1, max_points_per_centroid=10**6
        )
        reference.train(wide)
        ours.append(result.inertia[-1])
        theirs.append(2 * (1 - (wide @ reference.centroids.T).max(axis=1)).sum())
        exact = 2 * (1 - exact_products(vectors, result.centroids).max(axis=1)).sum()
        assert result.inertia[-1] == pytest.approx(exact, rel=1e-9)
    assert np.mean(ours) <= 1.01 * np.mean(theirs)


def test_one_iteration_matches_faiss_from_the_same_centroids():
    vectors = draw_vectors(3000, 24, num_concepts=20, seed=6)
    seeds = seed_centroids(vectors, 16, seed=0)
    reference = faiss.Kmeans(24, 16, niter=1, spherical=True, max_points_per_centroid=10**6)
    reference.train(vectors.astype(np.float32), init_centroids=seeds)
    part = sum_arrays([vectors], seeds)
    np.testing.assert_allclose(
        update_centroids(seeds, part.sums, counts=part.counts), reference.centroids, atol=1e-6
    )


def test_inertia_falls_and_sizes_are_those_of_the_result():
    vectors = draw_vectors(4000, 16, num_concepts=30, seed=7)
    result = kmeans(in_parts(vectors), num_clusters=25, seed=0)
    assert (np.diff(result.inertia) <= 1e-9).all()
    cluster, _ = assign(vectors, result.centroids)
    np.testing.assert_array_equal(result.sizes, np.bincount(cluster, minlength=25))
    np.testing.assert_allclose(np.linalg.norm(result.centroids, axis=1), 1, atol=1e-6)


def test_the_cut_into_parts_changes_no_bit():
    vectors = draw_vectors(5000, 32, num_concepts=40, seed=8)
    whole = kmeans(vectors, num_clusters=30, seed=4, iterations=6)
    for cuts in ((2500,), (1, 2, 4999), (0, 137, 137, 3000)):
        cut = kmeans(in_parts(vectors, *cuts), num_clusters=30, seed=4, iterations=6)
        np.testing.assert_array_equal(cut.centroids, whole.centroids)
        np.testing.assert_array_equal(cut.inertia, whole.inertia)
    assert whole.sizes.sum() == 5000


def test_sums_have_no_rounding():
    vectors = draw_vectors(3000, 16, num_concepts=4, seed=9)
    centroids = seed_centroids(vectors, 3, seed=0)
    order = np.random.default_rng(0).permutation(len(vectors))
    np.testing.assert_array_equal(
        sum_arrays([vectors], centroids).sums, sum_arrays([vectors[order]], centroids).sums
    )


def test_seed_decides():
    vectors = draw_vectors(2000, 16, num_concepts=50, seed=10)
    one, again, other = (
        kmeans(in_parts(vectors), num_clusters=20, seed=seed, iterations=2) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.centroids, again.centroids)
    assert not np.array_equal(one.centroids, other.centroids)


def test_an_empty_cluster_takes_half_of_the_largest():
    centroids = np.eye(4, dtype=np.float32)
    sums = np.diag([30.0, 0.0, 50.0, 20.0])
    updated = update_centroids(centroids, sums, counts=np.array([30, 0, 50, 20]))
    np.testing.assert_array_equal(updated[[0, 3]], centroids[[0, 3]])
    np.testing.assert_allclose(updated[1], centroids[2], atol=2e-3)
    np.testing.assert_allclose(updated[2], centroids[2], atol=2e-3)


def test_empty_clusters_fill_up():
    vectors = draw_vectors(2000, 16, num_concepts=2, seed=11)
    start = np.concatenate([vectors[:1], -vectors[:1], -vectors[:1]]).astype(np.float32)
    start /= np.linalg.norm(start, axis=1, keepdims=True)
    for _ in range(20):
        part = sum_arrays([vectors], start)
        start = update_centroids(start, part.sums, counts=part.counts)
    assert (sum_arrays([vectors], start).counts > 0).all()


def test_fewer_distinct_vectors_than_clusters():
    vectors = np.repeat(np.eye(3, dtype=np.float16), 10, axis=0)
    result = kmeans(in_parts(vectors), num_clusters=5, seed=0, iterations=3)
    assert result.sizes.sum() == 30
    assert result.inertia[-1] == pytest.approx(0, abs=1e-3)


def test_more_clusters_than_vectors_is_an_error():
    with pytest.raises(ConfigError, match="num_clusters=5 for 4 vectors"):
        kmeans(in_parts(np.eye(4, dtype=np.float16)), num_clusters=5, seed=0)


def test_parts_may_be_read_from_disk(tmp_path):
    vectors = draw_vectors(1000, 16, num_concepts=9, seed=12)
    parts = []
    for number, rows in enumerate(np.split(vectors, 4)):
        np.save(tmp_path / f"{number}.npy", rows)
        parts.append(lambda number=number: np.load(tmp_path / f"{number}.npy", mmap_mode="r"))
    mapped = kmeans(parts, num_clusters=8, seed=0, iterations=3)
    np.testing.assert_array_equal(
        mapped.centroids, kmeans(in_parts(vectors), num_clusters=8, seed=0, iterations=3).centroids
    )


def test_default_number_of_clusters():
    assert default_num_clusters(1_300_000_000) == pytest.approx(100_000, rel=0.01)
    assert default_num_clusters(9_000) == 266
    assert default_num_clusters(5) == 1


def test_config_refuses_unknown_fields():
    with pytest.raises(ValueError, match="clusters"):
        ClusterConfig.model_validate({"clusters": 3})
