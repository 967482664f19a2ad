"""Seconds per k-means iteration against faiss.Kmeans: the same vectors, the same start, spherical both.

    python tests/benchmarks/bench_kmeans.py [ROWS CLUSTERS [ITERATIONS [THREADS]]]

Iterations are interleaved, so that the machine's moods hit both alike; `rate` is the mean over all of them,
the first one too. `ratios` has them one by one: later ones are cheaper here, since rows that cannot have
changed their cluster are passed by. With one thread, times are the processor's: other work disturbs less.
"""

import json
import sys
import time

import faiss
import numpy as np
import torch

from curation.cluster.kmeans import evaluate, update_centroids
from curation.cluster.schedule import sample_rows
from curation.cluster.seeding import to_unit_length
from curation.cluster.sums import RunningSums

DIM, PART_ROWS, NUM_CONCEPTS = 384, 10_000, 3000
CASES = ((1_000_000, 1000), (250_000, 10_000))


def draw_vectors(num_rows: int, *, seed: int) -> np.ndarray:
    """Unit vectors around 3,000 concepts, as wide as embeddings of photographs are."""
    rng = np.random.default_rng(seed)
    concepts = rng.standard_normal((NUM_CONCEPTS, DIM), dtype=np.float32)
    vectors = np.empty((num_rows, DIM), np.float16)
    for start in range(0, num_rows, 50_000):
        part = concepts[rng.integers(NUM_CONCEPTS, size=min(50_000, num_rows - start))]
        part = part + rng.standard_normal(part.shape, dtype=np.float32)
        vectors[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def measure(num_rows: int, num_clusters: int, iterations: int, *, threads: int) -> dict[str, object]:
    """One line of results."""
    clock = time.process_time if threads == 1 else time.perf_counter
    vectors = draw_vectors(num_rows, seed=0)
    wide = vectors.astype(np.float32)
    parts = [vectors[i : i + PART_ROWS] for i in range(0, num_rows, PART_ROWS)]
    start = vectors[sample_rows(num_rows, num_clusters, seed=0)]
    ours = theirs = to_unit_length(start.astype(np.float64))
    running = RunningSums(lambda: parts, num_rows)
    ours_s, theirs_s = [], []
    for _ in range(iterations):
        begun = clock()
        total = running.under(ours)
        ours = update_centroids(ours, total.sums, counts=total.counts)
        ours_s.append(clock() - begun)
        # FAISS assigns once an iteration: niter=1 from given centroids is exactly one.
        trainer = faiss.Kmeans(DIM, num_clusters, niter=1, spherical=True, max_points_per_centroid=10**9)
        begun = clock()
        trainer.train(wide, init_centroids=theirs)
        theirs_s.append(clock() - begun)
        theirs = trainer.centroids
    inertia = [evaluate(RunningSums(lambda: parts, num_rows).under(c), c).inertia for c in (ours, theirs)]
    return {
        "what": "kmeans",
        "size": f"{num_rows} x {DIM}, k={num_clusters}, {iterations} iterations, {threads} threads",
        "rate": round(float(np.mean(ours_s)), 3),
        "unit": "s/iteration",
        "reference": "faiss.Kmeans spherical, all points",
        "reference_rate": round(float(np.mean(theirs_s)), 3),
        "ratio": round(sum(theirs_s) / sum(ours_s), 2),
        "ratios": [round(b / a, 2) for a, b in zip(ours_s, theirs_s, strict=True)],
        "inertia_over_reference": round(inertia[0] / inertia[1], 6),
    }


def main() -> None:
    numbers = [int(text) for text in sys.argv[1:]]
    cases = [(numbers[0], numbers[1])] if numbers else CASES
    iterations = numbers[2] if len(numbers) > 2 else 10
    threads = numbers[3] if len(numbers) > 3 else torch.get_num_threads()
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    for num_rows, num_clusters in cases:
        print(json.dumps(measure(num_rows, num_clusters, iterations, threads=threads)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
