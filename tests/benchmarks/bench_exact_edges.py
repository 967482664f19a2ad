"""Exact edges of a self-join: our blocked product against FAISS's flat range search.

    python tests/benchmarks/bench_exact_edges.py [--num-rows N] [--dim D] [--threshold T] [--repeats R]

Clustered unit vectors with planted copies. Each repeat runs every contender once, in turn, in one process;
the least disturbed run of each counts. `ratio` is the join of all ordered pairs (no use of symmetry) against
FAISS; `symmetric_ratio` is the self-join as a run does it. All contenders must give the same edges. The
reference is FAISS itself on fp32 vectors made beforehand, without the fp64 score that our edges carry.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable

import faiss
import numpy as np

from curation.search.exact import cosine_pairs
from curation.search.product import ProposeDtype


def planted_vectors(num_rows: int, *, dim: int, seed: int) -> np.ndarray:
    """Unit vectors around concepts; a tenth of the rows copy another row with a little noise."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((num_rows // 50, dim), np.float32)
    rows = centres[rng.integers(len(centres), size=num_rows)]
    rows += 1.2 * rng.standard_normal((num_rows, dim), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    copies, parents = rng.permutation(num_rows)[: num_rows // 5].reshape(2, -1)
    noise = rng.uniform(0, 0.6, (len(copies), 1)).astype(np.float32) / np.sqrt(dim, dtype=np.float32)
    rows[copies] = rows[parents] + noise * rng.standard_normal((len(copies), dim), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float16)


def faiss_range_search(rows: np.ndarray, *, threshold: float) -> int:
    """The reference: index and range search of everything against everything; ordered pairs found."""
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    ends, _, found = index.range_search(rows, threshold)
    return int((np.repeat(np.arange(len(rows)), np.diff(ends).astype(np.int64)) != found).sum())


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--threshold", type=float, default=0.9)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-bf16", action="store_true", help="for a machine without bf16 in hardware")
    args = parser.parse_args()
    rows = planted_vectors(args.num_rows, dim=args.dim, seed=0)
    single = rows.astype(np.float32)

    def join(*, same: bool, dtype: ProposeDtype | None = None) -> int:
        pairs = cosine_pairs(rows, rows, threshold=args.threshold, same=same, dtype=dtype)
        return 2 * len(pairs.a) if same else int((pairs.a != pairs.b).sum())

    contenders: dict[str, Callable[[], int]] = {
        "faiss": lambda: faiss_range_search(single, threshold=args.threshold),
        "all_pairs": lambda: join(same=False),
        "symmetric": lambda: join(same=True),
        "all_pairs_bf16": lambda: join(same=False, dtype="bf16"),
    }
    if args.no_bf16:
        del contenders["all_pairs_bf16"]
    times: dict[str, list[float]] = {name: [] for name in contenders}
    edges: dict[str, int] = {}
    for _ in range(args.repeats):
        for name, run in contenders.items():
            start = time.perf_counter()
            edges[name] = run()
            times[name].append(time.perf_counter() - start)
            print(f"{name}: {times[name][-1]:.1f} s", file=sys.stderr, flush=True)
    backend_edges = cosine_pairs(rows, rows, threshold=args.threshold, same=True, backend="faiss")
    ours = {edges[name] for name in contenders if name != "faiss"}
    assert ours == {2 * len(backend_edges.a)}, edges
    rate = {name: args.num_rows**2 / min(spent) / 1e9 for name, spent in times.items()}
    line = {
        "what": "exact cosine edges of a self-join, all ordered pairs",
        "size": {"num_rows": args.num_rows, "dim": args.dim, "threshold": args.threshold},
        "rate": round(rate["all_pairs"], 3),
        "unit": "G pair products/s",
        "reference": "faiss.IndexFlatIP.range_search, fp32",
        "reference_rate": round(rate["faiss"], 3),
        "ratio": round(rate["all_pairs"] / rate["faiss"], 2),
        "symmetric_rate": round(rate["symmetric"], 3),
        "symmetric_ratio": round(rate["symmetric"] / rate["faiss"], 2),
        "bf16_ratio": None if args.no_bf16 else round(rate["all_pairs_bf16"] / rate["faiss"], 2),
        "edges": edges["symmetric"] // 2,
        # fp32 decides these differently from the exact score; a few per million edges are expected
        "reference_edges": edges["faiss"] // 2,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
