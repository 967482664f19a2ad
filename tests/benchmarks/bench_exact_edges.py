"""Exact edges of a self-join: our blocked product against FAISS's flat range search.

    python tests/benchmarks/bench_exact_edges.py [--num-rows N] [--dim D] [--threshold T] [--block-rows B]

Clustered unit vectors with planted copies. The rows are joined as a run joins them, by pairs of blocks; on
each pair every contender has its turn before the next pair, in one process, so that a machine that others
slow down slows all of them. `ratio` is the time of all ordered pairs (no use of symmetry) against FAISS's;
`median_ratio` is the median of the pairs' own; `symmetric_ratio` is the self-join as a run does it, block
pairs on and above the diagonal alone. The reference is FAISS itself on fp32 vectors made beforehand,
without the fp64 score that our edges carry; it searches by `MARGIN` wider, so that its pairs, scored
exactly afterwards, are all the edges there are, and every contender must have found just these.
"""

import argparse
import itertools
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable

import faiss
import numpy as np

from curation.search.exact import cosine_pairs
from curation.search.product import ProposeDtype, exact_scores

Found = tuple[np.ndarray, np.ndarray]
MARGIN = 1e-4  # four times what fp32 can lose over 384 dimensions


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


def faiss_range_search(a: np.ndarray, b: np.ndarray, *, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The reference: index and range search of one block against another; the pairs found."""
    index = faiss.IndexFlatIP(b.shape[1])
    index.add(b)
    ends, _, found = index.range_search(a, threshold - MARGIN)
    return np.repeat(np.arange(len(a)), np.diff(ends).astype(np.int64)), found


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--threshold", type=float, default=0.9)
    parser.add_argument("--block-rows", type=int, default=50_000)
    parser.add_argument("--no-bf16", action="store_true", help="for a machine without bf16 in hardware")
    args = parser.parse_args()
    rows = planted_vectors(args.num_rows, dim=args.dim, seed=0)
    blocks = [slice(first, first + args.block_rows) for first in range(0, len(rows), args.block_rows)]
    seconds: dict[str, list[float]] = defaultdict(list)
    num_edges = 0
    for number, (left, right) in enumerate(itertools.product(blocks, blocks), start=1):
        spent, found = run_all(rows[left], rows[right], args, place=(left.start, right.start))
        for name in spent:
            seconds[name].append(spent[name])
        num_edges += found
        told = "  ".join(f"{name} {spent[-1]:.1f} s" for name, spent in seconds.items())
        print(f"{number} of {len(blocks) ** 2}: {told}", file=sys.stderr, flush=True)

    def ratio(name: str) -> float:
        return round(sum(seconds["faiss"]) / sum(seconds[name]), 2)

    each = np.array(seconds["faiss"]) / np.array(seconds["ours"])
    line = {
        "what": "exact cosine edges of a self-join, all ordered pairs",
        "size": {"num_rows": args.num_rows, "dim": args.dim, "threshold": args.threshold},
        "rate": round(args.num_rows**2 / sum(seconds["ours"]) / 1e9, 3),
        "unit": "G pair products/s",
        "reference": "faiss.IndexFlatIP.range_search, fp32",
        "reference_rate": round(args.num_rows**2 / sum(seconds["faiss"]) / 1e9, 3),
        "ratio": ratio("ours"),
        "median_ratio": round(float(np.median(each)), 2),
        "symmetric_ratio": ratio("symmetric"),
        "bf16_ratio": None if args.no_bf16 else ratio("bf16"),
        "edges": num_edges // 2,
    }
    print(json.dumps(line))


def run_all(
    a: np.ndarray, b: np.ndarray, args: argparse.Namespace, *, place: tuple[int, int]
) -> tuple[dict[str, float], int]:
    """Join one pair of blocks by each contender; seconds by name, and ordered pairs of two rows found."""
    singles = a.astype(np.float32), b.astype(np.float32)

    def ours(*, dtype: ProposeDtype | None = None, same: bool = False) -> Found:
        pairs = cosine_pairs(a, b, threshold=args.threshold, same=same, dtype=dtype)
        return pairs.a, pairs.b

    contenders: dict[str, Callable[[], Found]] = {
        "faiss": lambda: faiss_range_search(*singles, threshold=args.threshold),
        "ours": ours,
        "bf16": lambda: ours(dtype="bf16"),
        "symmetric": lambda: ours(same=place[0] == place[1]),
    }
    if args.no_bf16:
        del contenders["bf16"]
    if place[0] > place[1]:
        del contenders["symmetric"]
    seconds: dict[str, float] = {}
    expected: list[tuple[int, int]] = []
    for name, run in contenders.items():
        start = time.perf_counter()
        i, j = run()
        seconds[name] = time.perf_counter() - start
        if name == "faiss":
            is_edge = exact_scores(a, b, rows=i, columns=j) >= args.threshold
            expected = sorted(zip(i[is_edge].tolist(), j[is_edge].tolist(), strict=True))
        else:  # each edge once, none more, none reversed
            upper = name == "symmetric" and place[0] == place[1]
            wanted = [(i, j) for i, j in expected if i < j] if upper else expected
            assert list(zip(i.tolist(), j.tolist(), strict=True)) == wanted, name
    return seconds, sum(i + place[0] != j + place[1] for i, j in expected)


if __name__ == "__main__":
    main()
