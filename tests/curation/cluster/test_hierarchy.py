import numpy as np
import pytest
from pydantic import ValidationError

from curation.cluster.config import HierarchyConfig, LevelConfig
from curation.cluster.hierarchy import build_level, build_levels, split_cluster, split_clusters
from curation.cluster.kmeans import assign, kmeans
from curation.cluster.resampling import closest_points, seed_of
from curation.errors import ConfigError
from tests.curation.cluster.long_tail import draw_long_tail

pytestmark = pytest.mark.usefixtures("arithmetic")


def unit(rows: list[list[float]] | np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def draw_points(num_rows: int, dim: int, *, seed: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((num_rows, dim)))


def two_levels(**fields: object) -> HierarchyConfig:
    return HierarchyConfig.model_validate(
        {"levels": [{"num_clusters": 12}, {"num_clusters": 4}], "resampling_steps": 3, "iterations": 5}
        | fields
    )


def test_closest_points_by_hand():
    cluster = np.array([1, 0, 1, 1, 0, 1, 3], np.int32)
    score = np.array([0.5, 0.9, 0.7, 0.7, 0.8, 0.9, 0.1], np.float32)
    assert closest_points(cluster, score, closest=1).tolist() == [1, 5, 6]
    assert closest_points(cluster, score, closest=2).tolist() == [1, 2, 4, 5, 6]  # the lower of equals
    assert closest_points(cluster, score, closest=9).tolist() == list(range(7))


def test_a_resampling_evens_out_what_crowds_pull():
    # Two arcs of one length, one with 120 points and one with 12: of 8 centroids a clustering of all points
    # spends few on the thin arc, and a resampled one shares them out.
    angle = np.concatenate([np.linspace(-1.4, -0.2, 120), np.linspace(0.2, 1.4, 12)])
    points = unit(np.stack([np.cos(angle), np.sin(angle)], axis=1))
    config = LevelConfig(num_clusters=8, closest=2)

    def on_the_thin_arc(steps: int) -> float:
        levels = [
            build_level(points, config, resampling_steps=steps, iterations=20, seed=seed) for seed in range(5)
        ]
        return float(np.mean([(level.centroids[:, 1] > 0).sum() for level in levels]))

    plain, resampled = on_the_thin_arc(0), on_the_thin_arc(5)
    assert plain <= 3 < resampled <= 5


def test_a_level_is_what_the_loop_of_the_paper_gives():
    points = draw_points(300, 8, seed=1)
    level = build_level(
        points, LevelConfig(num_clusters=20, closest=4), resampling_steps=2, iterations=6, seed=9
    )
    halves = points.astype(np.float16)
    kept = halves
    for step in range(3):
        centroids = kmeans(
            [lambda kept=kept: kept], num_clusters=20, seed=seed_of(9, step), iterations=6
        ).centroids
        product = halves.astype(np.float64) @ centroids.astype(np.float64).T
        nearest = product.argmax(axis=1)
        keep = set()
        for cluster in range(20):
            mine = np.flatnonzero(nearest == cluster)
            keep |= set(mine[np.argsort(-product[mine, cluster], kind="stable")][:4].tolist())
        kept = halves[sorted(keep)]
    np.testing.assert_array_equal(level.centroids, centroids)
    np.testing.assert_array_equal(level.parent, nearest)


def test_levels_stand_on_one_another():
    leaves = draw_points(100, 8, seed=2)
    levels = build_levels(leaves, two_levels(), seed=0)
    assert [len(level.centroids) for level in levels] == [12, 4]
    below = leaves
    for level in levels:
        parent, _ = assign(below.astype(np.float16), level.centroids)
        np.testing.assert_array_equal(level.parent, parent)
        np.testing.assert_allclose(np.linalg.norm(level.centroids, axis=1), 1, atol=1e-6)
        below = level.centroids


def test_the_seed_decides():
    leaves = draw_points(100, 8, seed=3)
    one, again, other = (build_levels(leaves, two_levels(), seed=seed) for seed in (5, 5, 6))
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a.centroids, b.centroids)
        np.testing.assert_array_equal(a.parent, b.parent)
    assert not np.array_equal(one[0].centroids, other[0].centroids)


def test_half_a_mean_cluster_is_kept_where_nothing_is_said():
    points = draw_points(90, 8, seed=5)
    levels = [
        build_level(points, level, resampling_steps=2, iterations=3, seed=0)
        for level in (LevelConfig(num_clusters=10), LevelConfig(num_clusters=10, closest=5))
    ]
    np.testing.assert_array_equal(levels[0].centroids, levels[1].centroids)


def test_points_that_are_all_alike():
    points = np.repeat(np.eye(3, 8, dtype=np.float32), 10, axis=0)
    level = build_level(points, LevelConfig(num_clusters=8), resampling_steps=4, iterations=3, seed=0)
    assert len({tuple(level.parent[rows]) for rows in (slice(0, 10), slice(10, 20), slice(20, 30))}) == 3
    for rows in (slice(0, 10), slice(10, 20), slice(20, 30)):
        assert len(set(level.parent[rows].tolist())) == 1


def test_a_level_needs_more_points_than_clusters():
    with pytest.raises(ConfigError, match="num_clusters=12 above 12 clusters") as caught:
        build_levels(draw_points(12, 8, seed=6), two_levels(), seed=0)
    assert "hierarchy.levels" in caught.value.remedy


def test_a_split_has_no_empty_leaf_and_every_vector_its_nearest():
    vectors = draw_long_tail(200, num_concepts=5, dim=8, spread=0.5, seed=7).vectors
    split = split_cluster(vectors, splits=12, iterations=10, seed=0)
    assert np.bincount(split.leaf).min() > 0
    assert len(split.centroids) == split.leaf.max() + 1 <= 12
    leaf, score = assign(vectors, split.centroids)
    np.testing.assert_array_equal(split.leaf, leaf)
    np.testing.assert_array_equal(split.score, score)


def test_a_small_cluster_splits_into_its_distinct_vectors():
    vectors = np.repeat(np.eye(3, 8, dtype=np.float16), 2, axis=0)
    split = split_cluster(vectors, splits=100, iterations=5, seed=0)
    assert len(split.centroids) == 3
    assert split.leaf[::2].tolist() == split.leaf[1::2].tolist()
    assert split_cluster(vectors[:1], splits=100, iterations=5, seed=0).leaf.tolist() == [0]


def test_clusters_split_each_on_its_own():
    vectors = draw_long_tail(150, num_concepts=5, dim=8, spread=0.5, seed=8).vectors
    starts = np.array([0, 40, 40, 43, len(vectors)])
    split = split_clusters(vectors, starts, splits=6, iterations=4, seeds=[3, 1, 4, 1])
    num_leaves = 0
    for start, stop, seed in ((0, 40, 3), (40, 43, 4), (43, len(vectors), 1)):
        alone = split_cluster(vectors[start:stop], splits=6, iterations=4, seed=seed)
        np.testing.assert_array_equal(split.leaf[start:stop], alone.leaf + num_leaves)
        np.testing.assert_array_equal(split.score[start:stop], alone.score)
        mine = slice(num_leaves, num_leaves + len(alone.centroids))
        np.testing.assert_array_equal(split.centroids[mine], alone.centroids)
        num_leaves = mine.stop
    assert len(split.centroids) == num_leaves


def test_levels_that_do_not_get_smaller_are_refused():
    for sizes in ([10, 10], [10, 20]):
        with pytest.raises(ValidationError, match="must get smaller"):
            HierarchyConfig(levels=tuple(LevelConfig(num_clusters=size) for size in sizes))
    with pytest.raises(ValidationError, match="at least 1 item"):
        HierarchyConfig(levels=())
