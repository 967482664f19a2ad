"""Hierarchical k-means with resampling: clusters of clusters, spread over what there is to see.

k-means puts its centroids where vectors are many, so a concept with a million pictures gets a thousand
clusters and a rare one shares its cluster with others. Two rules work against that. A level clusters the
centroids of the level below, each counted once however many images its cluster holds. And a level is
resampled: of each cluster the few points nearest to its centroid are kept, the level is clustered anew on
these alone, and all points are assigned again; crowded regions lose most by it.

The first level, the leaves, is the flat clustering of `kmeans`, or each of its clusters split in turn: ten
million clusters cost a thousandth that way. From there on the points are centroids, which fit in memory.

What differs from the published code: centroids are scaled to unit length on every level (k-means is spherical
here), and `resampling_steps` counts resamplings, where the code's config counts clusterings, the first
included.

Source: arXiv:2405.15613, §3; r, steps and iterations as in its config for 743 million images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float16, Float32, Int32, Int64

from curation.cluster.config import HierarchyConfig, LevelConfig
from curation.cluster.kmeans import assign, kmeans
from curation.cluster.resampling import check_level, closest_points, seed_of


@dataclass(frozen=True)
class Level:
    """One level above others: its centroids, and which of them each point below belongs to."""

    centroids: Float32[np.ndarray, "k d"]
    parent: Int32[np.ndarray, "n"]


@dataclass(frozen=True)
class Split:
    """Leaves, none of them empty, and the one that each vector is in."""

    centroids: Float32[np.ndarray, "k d"]
    leaf: Int32[np.ndarray, "m"]
    score: Float32[np.ndarray, "m"]  # inner product with the leaf's centroid


def build_levels(
    leaves: Float32[np.ndarray, "n d"], config: HierarchyConfig, *, seed: int
) -> tuple[Level, ...]:
    """All levels above the leaves, from below; a run builds them one by one, in steps of its own.

    Args:
        leaves: centroids of the leaves, of unit length.
        config: the levels; its `splits` have been made by then.
        seed: of every clustering.

    Returns:
        One Level for each of `config.levels`. `parent` of the first is by leaf, of the others by cluster of
        the level before.

    Raises:
        ConfigError: a level has no fewer clusters than the level below.
    """
    levels: list[Level] = []
    points = leaves
    for number, level in enumerate(config.levels):
        levels.append(
            build_level(
                points,
                level,
                resampling_steps=config.resampling_steps,
                iterations=config.iterations,
                seed=seed_of(seed, 1 + number),
            )
        )
        points = levels[-1].centroids
    return tuple(levels)


def build_level(
    below: Float32[np.ndarray, "n d"],
    level: LevelConfig,
    *,
    resampling_steps: int,
    iterations: int,
    seed: int,
) -> Level:
    """Cluster the centroids of a level, with resampling.

    Args:
        below: centroids of the level below, of unit length; they are clustered as fp16, like images.
        level: clusters, and how many points of each a resampling keeps.
        resampling_steps: clusterings after the first.
        iterations: of each clustering, at most.
        seed: of each clustering, together with its number.

    Returns:
        The centroids of the last clustering, and the nearest of them for every point.

    Raises:
        ConfigError: there are not more points than clusters.
    """
    k = level.num_clusters
    check_level(len(below), k)
    points = below.astype(np.float16)
    closest = level.num_closest(len(points))
    kept = points
    for step in range(1 + resampling_steps):
        found = kmeans(kept, num_clusters=k, seed=seed_of(seed, step), iterations=iterations)
        cluster, score = assign(points, found.centroids)
        kept = points[closest_points(cluster, score, closest=closest)]
        if len(kept) < k:  # clusters came out empty, and what is left cannot fill so many again
            break
    return Level(found.centroids, cluster)


def split_clusters(
    vectors: Float16[np.ndarray, "m d"],
    starts: Int64[np.ndarray, "c"],
    *,
    splits: int,
    iterations: int,
    seeds: Sequence[int],
) -> Split:
    """Split flat clusters into leaves, each on its own.

    Args:
        vectors: cluster by cluster.
        starts: where the vectors of each cluster begin, and the end of the last.
        splits: leaves of a cluster at most; as many as it has vectors where these are fewer.
        iterations: updates of the centroids, at most.
        seeds: of k-means++, for each cluster.

    Returns:
        The leaves of all clusters, numbered through; a cluster without vectors has none.

    Source: the published config of arXiv:2405.15613 splits 100,000 clusters by 100.
    """
    leaf, score = np.empty(len(vectors), np.int32), np.empty(len(vectors), np.float32)
    centroids = [np.empty((0, vectors.shape[1]), np.float32)]
    num_leaves = 0
    for (start, stop), seed in zip(pairwise(starts.tolist()), seeds, strict=True):
        if stop > start:
            split = split_cluster(vectors[start:stop], splits=splits, iterations=iterations, seed=seed)
            leaf[start:stop], score[start:stop] = split.leaf + num_leaves, split.score
            centroids.append(split.centroids)
            num_leaves += len(split.centroids)
    return Split(np.concatenate(centroids), leaf, score)


def split_cluster(vectors: Float16[np.ndarray, "m d"], *, splits: int, iterations: int, seed: int) -> Split:
    """Split one cluster, of at least one vector; see `split_clusters`."""
    k = min(splits, len(vectors))
    found = kmeans(vectors, num_clusters=k, seed=seed, iterations=iterations)
    cluster, score = assign(vectors, found.centroids)
    used, leaf = np.unique(cluster, return_inverse=True)
    return Split(found.centroids[used], leaf.astype(np.int32), score)
