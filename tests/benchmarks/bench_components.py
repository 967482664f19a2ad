"""Connected components of random edges against scipy's, in turns in one process, each with its peak memory.

    python tests/benchmarks/bench_components.py [--num-rows N] [--num-edges E] [--repeats R]

`chunked` takes the same edges in runs of a million, as from files; labels must be equal to the last row. The
peak is what an implementation allocates on top of the edges that it is given (tracemalloc sees NumPy).
"""

import argparse
import json
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from curation.dedup.components import Forest, components

CHUNK_EDGES = 1_000_000


def by_scipy(num_rows: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The reference; its numbers are not yet smallest rows."""
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(num_rows, num_rows))
    return connected_components(graph, directed=False)[1]


def chunked(num_rows: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A forest that sees a million edges at a time."""
    forest = Forest(num_rows)
    for start in range(0, len(a), CHUNK_EDGES):
        forest.join(a[start : start + CHUNK_EDGES], b[start : start + CHUNK_EDGES])
    return forest.labels()


def peak_bytes(run: Callable[[], np.ndarray]) -> int:
    """What a run allocates at most."""
    tracemalloc.start()
    run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def main() -> None:
    """Measure, and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-rows", type=int, default=5_000_000)
    parser.add_argument("--num-edges", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    a, b = np.random.default_rng(0).integers(args.num_rows, size=(2, args.num_edges))
    contenders: dict[str, Callable[[], np.ndarray]] = {
        "ours": lambda: components(args.num_rows, a, b),
        "chunked": lambda: chunked(args.num_rows, a, b),
        "scipy": lambda: by_scipy(args.num_rows, a, b),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    found: dict[str, np.ndarray] = {}
    for _ in range(args.repeats):
        for name, run in contenders.items():
            start = time.perf_counter()
            found[name] = run()
            times[name].append(time.perf_counter() - start)
    _, first = np.unique(found["scipy"], return_index=True)
    assert (found["ours"] == first[found["scipy"]]).all()
    assert (found["ours"] == found["chunked"]).all()
    seconds = {name: min(spent) for name, spent in times.items()}
    line = {
        "what": "connected components of random edges",
        "size": {"num_rows": args.num_rows, "num_edges": args.num_edges},
        "rate": round(args.num_edges / seconds["ours"] / 1e6, 2),
        "unit": "M edges/s",
        "reference": "scipy.sparse.csgraph.connected_components",
        "reference_rate": round(args.num_edges / seconds["scipy"] / 1e6, 2),
        "ratio": round(seconds["scipy"] / seconds["ours"], 2),
        "chunked_ratio": round(seconds["scipy"] / seconds["chunked"], 2),
        "peak_MB": {name: round(peak_bytes(run) / 1e6) for name, run in contenders.items()},
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
