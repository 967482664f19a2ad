"""Seconds per k-means iteration against faiss.Kmeans on the same vectors, spherical both, at like inertia."""

import json
import sys
import time

import faiss
import numpy as np

from curation.cluster.kmeans import partial_sums, seed_centroids, update_centroids

NUM_ROWS, DIM, NUM_CLUSTERS, ITERATIONS, PART_ROWS = 250_000, 384, 1000, 6, 10_000


def draw_vectors(num_rows: int, dim: int, *, seed: int) -> np.ndarray:
    """Unit vectors around 3,000 concepts, as wide as embeddings of photographs are."""
    rng = np.random.default_rng(seed)
    concepts = rng.standard_normal((3000, dim), dtype=np.float32)
    vectors = concepts[rng.integers(3000, size=num_rows)] + rng.standard_normal(
        (num_rows, dim), dtype=np.float32
    )
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def inertia_of(vectors: np.ndarray, centroids: np.ndarray) -> float:
    """Sum over vectors of 2·(1 - largest inner product)."""
    best = [
        (vectors[i : i + 5000].astype(np.float32) @ centroids.T).max(axis=1)
        for i in range(0, len(vectors), 5000)
    ]
    return float(2 * (1 - np.concatenate(best).astype(np.float64)).sum())


def main() -> None:
    vectors = draw_vectors(NUM_ROWS, DIM, seed=0)
    wide = vectors.astype(np.float32)
    parts = [vectors[i : i + PART_ROWS] for i in range(0, NUM_ROWS, PART_ROWS)]
    centroids = seed_centroids(vectors[:: NUM_ROWS // (16 * NUM_CLUSTERS)], NUM_CLUSTERS, seed=0)
    theirs = wide[np.random.default_rng(0).choice(NUM_ROWS, NUM_CLUSTERS, replace=False)]
    ours_s, theirs_s = [], []
    for _ in range(ITERATIONS):  # interleaved, one iteration each: the machine's moods hit both alike
        start = time.perf_counter()
        sums, counts = np.zeros((NUM_CLUSTERS, DIM)), np.zeros(NUM_CLUSTERS, np.int64)
        for part in parts:
            one = partial_sums(part, centroids)
            sums += one.sums
            counts += one.counts
        centroids = update_centroids(centroids, sums, counts=counts)
        ours_s.append(time.perf_counter() - start)
        # FAISS assigns once an iteration: niter=1 from given centroids is exactly one.
        trainer = faiss.Kmeans(DIM, NUM_CLUSTERS, niter=1, spherical=True, max_points_per_centroid=10**9)
        start = time.perf_counter()
        trainer.train(wide, init_centroids=theirs)
        theirs_s.append(time.perf_counter() - start)
        theirs = trainer.centroids
    ours, reference = min(ours_s), min(theirs_s)  # the least disturbed iteration of each
    print(
        json.dumps(
            {
                "what": "kmeans",
                "size": f"{NUM_ROWS} x {DIM}, k={NUM_CLUSTERS}",
                "rate": round(ours, 3),
                "unit": "s/iteration",
                "reference": "faiss.Kmeans spherical",
                "reference_rate": round(reference, 3),
                "ratio": round(reference / ours, 2),
                "inertia_over_reference": round(
                    inertia_of(vectors, centroids) / inertia_of(vectors, theirs), 4
                ),
            }
        )
    )


if __name__ == "__main__":
    sys.exit(main())
