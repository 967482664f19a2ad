"""Self-dedup of clustered vectors: our join cell by cell against FAISS's inverted lists.

    python tests/benchmarks/bench_self_dedup.py [--num-rows N] [--rows-per-concept R] [--probes P]

Unit vectors around concepts, with planted copies at a cosine uniform between the threshold and 1. One
process, in turns: FAISS's `IVF4096,SQfp16` (trained on 64 vectors a list, all added, all searched for k = 64
with nprobe 16), and ours: train, assign, join, with num_cells and num_probes by the rules that a run follows,
unless named. `ratio` is FAISS's time by ours, `ratio_trained` without the training of either. `recall` is
the share of planted pairs that each found; `measured` what a run would say of its own recall. FAISS gets
fewer lists below a million rows, in proportion to the root of N.
"""

import argparse
import json
import resource
import time

import faiss
import numpy as np
import torch

from curation.cluster.train_cells import train_cells
from curation.search.cell_join import Visitors, join_cells
from curation.search.cells import nearest_cells
from curation.search.cells_config import default_num_cells
from curation.search.edges import Pairs
from curation.search.recall import choose_probes, exact_truth, measured_recall

SAMPLE_ROWS_PER_CELL = 64
CHUNK_ROWS = 131_072
NEIGHBOURS = 64


def planted(
    num_rows: int, *, dim: int, rows_per_concept: int, threshold: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors, and the pairs planted among them: a tenth of the rows copy another row."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(num_rows // rows_per_concept, 1), dim), np.float32)
    rows = np.empty((num_rows, dim), np.float16)
    for start in range(0, num_rows, CHUNK_ROWS):
        part = rows[start : start + CHUNK_ROWS]
        noise = rng.standard_normal(part.shape, np.float32)
        part[:] = unit(centres[rng.integers(len(centres), size=len(part))] + 1.2 * noise)
    copies, parents = rng.permutation(num_rows)[: num_rows // 5].reshape(2, -1)
    for start in range(0, len(copies), CHUNK_ROWS):
        copy, parent = copies[start : start + CHUNK_ROWS], rows[parents[start : start + CHUNK_ROWS]]
        cosine = rng.uniform(threshold + 0.002, 1, (len(copy), 1)).astype(np.float32)
        away = rng.standard_normal(parent.shape, np.float32)
        away -= (away * parent).sum(axis=1, keepdims=True) * parent
        rows[copy] = cosine * parent + np.sqrt(1 - cosine**2) * unit(away)
    return rows, np.minimum(copies, parents), np.maximum(copies, parents)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length one."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def faiss_dedup(
    rows: np.ndarray, *, num_lists: int, threshold: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """The reference: train, add and search everything; unordered pairs found, and seconds of training."""
    start_time, dim = time.perf_counter(), rows.shape[1]
    index = faiss.index_factory(dim, f"IVF{num_lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
    chosen = np.random.default_rng(1).choice(len(rows), min(64 * num_lists, len(rows)), replace=False)
    index.train(rows[np.sort(chosen)].astype(np.float32))
    train_s = time.perf_counter() - start_time
    for start in range(0, len(rows), CHUNK_ROWS):
        index.add(rows[start : start + CHUNK_ROWS].astype(np.float32))
    index.nprobe = 16
    found = []
    for start in range(0, len(rows), CHUNK_ROWS):
        score, other = index.search(rows[start : start + CHUNK_ROWS].astype(np.float32), NEIGHBOURS)
        query, place = np.nonzero(score >= threshold)
        found.append(np.stack([query + start, other[query, place]]))
    a, b = np.concatenate(found, axis=1)
    return np.minimum(a, b)[a != b], np.maximum(a, b)[a != b], train_s


def cell_dedup(
    rows: np.ndarray, *, num_cells: int, num_probes: int | None, threshold: float
) -> tuple[Pairs, dict[str, float], dict[str, object]]:
    """Ours, with the seconds of every step."""
    clock, steps = time.perf_counter(), {}

    def lap(name: str) -> None:
        nonlocal clock
        steps[name] = time.perf_counter() - clock
        clock = time.perf_counter()

    rng = np.random.default_rng(2)
    trained = rng.choice(len(rows), min(SAMPLE_ROWS_PER_CELL * num_cells, len(rows)), replace=False)
    centroids = train_cells(rows[np.sort(trained)], num_cells, seed=0)
    lap("train_s")
    if num_probes is None:
        sampled = rows[np.sort(rng.choice(len(rows), min(1024, len(rows)), replace=False))]
        truth = exact_truth(sampled, rows, centroids, threshold=threshold)
        every = np.ones(len(sampled), bool)
        num_probes = choose_probes(truth, rows=every, min_recall=0.999, most=num_cells)
        lap("choose_probes_s")
    cells = nearest_cells(rows, centroids, num_probes=num_probes)
    lap("assign_s")
    every_row = np.arange(len(rows))
    everyone = Visitors(every_row, rows, cells)
    chunks = (everyone[every_row[s : s + CHUNK_ROWS]] for s in range(0, len(rows), CHUNK_ROWS))
    pairs = join_cells(everyone, chunks, cells=range(num_cells), rows=every_row, threshold=threshold)
    lap("join_s")
    sampled = rows[np.sort(rng.choice(len(rows), min(2048, len(rows)), replace=False))]
    truth = exact_truth(sampled, rows, centroids, threshold=threshold)
    recall = measured_recall(truth, rows=np.ones(len(sampled), bool), num_probes=num_probes)
    lap("measure_s")
    return pairs, steps, {"num_probes": num_probes, "measured": vars(recall)}


def share_found(a: np.ndarray, b: np.ndarray, *, planted_a: np.ndarray, planted_b: np.ndarray) -> float:
    """The share of planted pairs among those found."""
    width = 1 << 32
    return float(np.isin(planted_a * width + planted_b, a * width + b).mean())


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--rows-per-concept", type=int, default=250)
    parser.add_argument("--threshold", type=float, default=0.6)
    parser.add_argument("--cells", type=int, default=None, help="default: by the rule for N")
    parser.add_argument("--probes", type=int, default=None, help="default: chosen on a sample")
    parser.add_argument("--threads", type=int, default=None, help="of both; default: the cores")
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
        faiss.omp_set_num_threads(args.threads)
    rows, planted_a, planted_b = planted(
        args.num_rows, dim=args.dim, rows_per_concept=args.rows_per_concept, threshold=args.threshold, seed=0
    )
    num_lists = min(4096, round(4096 * (args.num_rows / 1e6) ** 0.5))
    num_cells = args.cells or default_num_cells(args.num_rows)
    # Seconds of both, in turns: of everything, and without training.
    reference, ours = [], []
    for _ in range(args.repeats):
        start = time.perf_counter()
        a, b, train_s = faiss_dedup(rows, num_lists=num_lists, threshold=args.threshold)
        seconds = time.perf_counter() - start
        reference.append((seconds, seconds - train_s))
        pairs, steps, facts = cell_dedup(
            rows, num_cells=num_cells, num_probes=args.probes, threshold=args.threshold
        )
        seconds = sum(steps.values()) - steps["measure_s"]  # FAISS measures nothing, so that is not counted
        ours.append((seconds, seconds - steps["train_s"]))
    (spent, searched), (own_spent, own_searched) = min(reference), min(ours)
    truth = {"planted_a": planted_a, "planted_b": planted_b}
    line = {
        "what": "self-dedup of clustered vectors with planted copies, approximate",
        "size": {name: getattr(args, name) for name in ("num_rows", "dim", "rows_per_concept", "threshold")},
        "rate": round(args.num_rows / own_spent),
        "unit": "rows/s",
        "reference": f"faiss IVF{num_lists},SQfp16, nprobe 16, k {NEIGHBOURS}: train, add, search",
        "reference_rate": round(args.num_rows / spent),
        "ratio": round(spent / own_spent, 2),
        "ratio_trained": round(searched / own_searched, 2),
        "recall": round(share_found(pairs.a, pairs.b, **truth), 5),
        "reference_recall": round(share_found(a, b, **truth), 5),
        "num_cells": num_cells,
        **facts,
        **{name: round(value, 2) for name, value in steps.items()},
        "reference_s": [round(spent, 2), round(searched, 2)],
        "edges": len(pairs.a),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
