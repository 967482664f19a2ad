"""A sample by hierarchy covers a long tail of concepts more evenly than one by flat clusters, or by lot."""

import numpy as np
import pytest

from curation.cluster.config import HierarchyConfig, LevelConfig
from curation.cluster.hierarchy import build_levels
from curation.cluster.kmeans import assign, kmeans
from curation.cluster.sampling import Candidates, balanced_sample
from tests.curation.cluster.long_tail import balance_of, draw_long_tail

pytestmark = pytest.mark.usefixtures("arithmetic")


@pytest.mark.parametrize("seed", [0, 1])
def test_closer_to_uniform_than_flat_clusters_and_than_chance(seed):
    tail = draw_long_tail(4000, num_concepts=24, dim=24, spread=0.7, seed=seed)
    budget, ids = 400, np.arange(len(tail.vectors))

    def flat(num_clusters: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        centroids = kmeans(
            [lambda: tail.vectors], num_clusters=num_clusters, seed=seed, iterations=10
        ).centroids
        return centroids, *assign(tail.vectors, centroids)

    def divergence(chosen: np.ndarray) -> float:
        assert chosen.sum() == budget
        return balance_of(tail.concept[chosen], tail.num_concepts)[0]

    leaves, leaf, score = flat(300)
    config = HierarchyConfig(
        levels=(LevelConfig(num_clusters=80), LevelConfig(num_clusters=24)),
        resampling_steps=10,
        iterations=10,
    )
    parents = [level.parent for level in build_levels(leaves, config, seed=seed)]
    candidates = Candidates(leaf, score, ids)
    by_hierarchy = divergence(balanced_sample(candidates, parents, budget=budget, order="random", seed=seed))
    by_leaves = divergence(balanced_sample(candidates, [], budget=budget, order="random", seed=seed))
    _, cluster, score = flat(24)  # as many as the hierarchy has at its top, and as there are concepts
    by_flat = divergence(
        balanced_sample(Candidates(cluster, score, ids), [], budget=budget, order="random", seed=seed)
    )
    by_lot = np.zeros(len(ids), bool)
    by_lot[np.random.default_rng(seed).choice(len(ids), budget, replace=False)] = True
    assert by_hierarchy < 0.5 * min(by_leaves, by_flat, divergence(by_lot))
