"""How evenly a sample covers a long tail of 50 known concepts: by hierarchy, by flat k-means, and by chance.

The divergence is that from the uniform distribution over concepts, in nats; the number of concepts is the
effective one, exp(entropy); both are means over draws. The reference is flat k-means with the number of
clusters that does it best, out of those of the hierarchy and the number of concepts.
"""

import json
import sys
from pathlib import Path

import numpy as np

# A script's own folder comes first on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from curation.cluster.config import HierarchyConfig, LevelConfig
from curation.cluster.hierarchy import build_levels
from curation.cluster.kmeans import assign, kmeans
from curation.cluster.sampling import Candidates, balanced_sample
from tests.curation.cluster.long_tail import LongTail, balance_of, draw_long_tail

NUM_ROWS, NUM_CONCEPTS, DIM, SPREAD, BUDGET = 20_000, 50, 64, 1.0, 1000
LEAVES, LEVELS, RESAMPLING_STEPS, DRAWS = 1000, (400, 100), 10, 3


def main() -> None:
    draws = [measure(seed) for seed in range(DRAWS)]
    found = {
        name: {
            "divergence": round(float(np.mean([draw[name][0] for draw in draws])), 3),
            "concepts": round(float(np.mean([draw[name][1] for draw in draws])), 1),
        }
        for name in draws[0]
    }
    best_flat = min(figures["divergence"] for name, figures in found.items() if name.startswith("flat"))
    ours = list(found.values())[-1]["divergence"]
    print(
        json.dumps(
            {
                "what": "balance over concepts",
                "size": f"{NUM_ROWS} x {DIM}, {NUM_CONCEPTS} concepts, {BUDGET} sampled, {DRAWS} draws",
                "rate": ours,
                "unit": "nats from uniform",
                "reference": "flat k-means, the best number of clusters",
                "reference_rate": best_flat,
                "ratio": round(best_flat / ours, 2),
                "all": found,
            }
        )
    )


def measure(seed: int) -> dict[str, tuple[float, float]]:
    """Divergence and number of concepts of every way to sample one drawn set; the last is ours."""
    tail = draw_long_tail(NUM_ROWS, num_concepts=NUM_CONCEPTS, dim=DIM, spread=SPREAD, seed=seed)
    by_lot = np.zeros(len(tail.concept), bool)
    by_lot[np.random.default_rng(seed).choice(len(by_lot), BUDGET, replace=False)] = True
    chosen = {"pool": np.ones(len(by_lot), bool), "random": by_lot}
    clustered = {k: cluster(tail, k, seed) for k in (LEAVES, *LEVELS, NUM_CONCEPTS)}
    for k, (_, candidates) in clustered.items():
        chosen[f"flat k={k}"] = sample(candidates, [], seed)
    centroids, candidates = clustered[LEAVES]
    for steps in (0, RESAMPLING_STEPS):
        config = HierarchyConfig(
            levels=tuple(LevelConfig(num_clusters=k) for k in LEVELS), resampling_steps=steps
        )
        parents = [level.parent for level in build_levels(centroids, config, seed=seed)]
        name = f"hierarchy {LEAVES}-{'-'.join(map(str, LEVELS))}, {steps} resamplings"
        chosen[name] = sample(candidates, parents, seed)
    return {name: balance_of(tail.concept[rows], NUM_CONCEPTS) for name, rows in chosen.items()}


def cluster(tail: LongTail, num_clusters: int, seed: int) -> tuple[np.ndarray, Candidates]:
    """Centroids, and the candidates in their clusters."""
    centroids = kmeans([lambda: tail.vectors], num_clusters=num_clusters, seed=seed).centroids
    return centroids, Candidates(*assign(tail.vectors, centroids), np.arange(len(tail.vectors)))


def sample(candidates: Candidates, parents: list[np.ndarray], seed: int) -> np.ndarray:
    """The sample, of exactly the budget."""
    chosen = balanced_sample(candidates, parents, budget=BUDGET, order="random", seed=seed)
    assert chosen.sum() == BUDGET
    return chosen


if __name__ == "__main__":
    sys.exit(main())
