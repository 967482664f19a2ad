"""What a run costs per row as its pool grows: real stages over tiny pictures with synthetic vectors.

python tests/benchmarks/bench_growth.py [--rows 100000,1000000] [--executor ray] [--no-cells]

Each size is a run of its own over freshly written tars; the vectors lie around 500 directions, with planted
copies. Then its copies are searched once more, cell by cell. Per step: the seconds of work by the receipts
(of clustering: by the clock), and how the time per row grew from the smallest size to the largest. The
exponent of a step is log(time ratio) / log(rows ratio): 1 is linear, 2 is every pair. The driver's peak
gives its bytes per row between the two sizes: of all that was resident until the command was done, by the
kernel, and of what no file stands behind, looked at ten times a second.
"""

import argparse
import json
import math
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections import defaultdict
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

TAR_IMAGES = 10_000
NUM_DIRECTIONS, DIM = 500, 64
SIDE_PX = 16
# The command, and what the kernel says of the process at its end. Not later: unloading reads libraries in.
LVD = """
import sys
from pathlib import Path
from pipelines.cli.main import main
code = main(sys.argv[2:])
Path(sys.argv[1]).write_text(Path("/proc/self/status").read_text())
sys.exit(code)
"""
# Steps of one run together are a line of the table.
LINES = {
    "describe": ("describe",),
    "exact join": ("dedup_edges",),
    "join by cells": ("dedup_cell_edges",),
    "sharding": ("shard",),
}


def main() -> None:
    """Run every size and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", default="100000,1000000", help="sizes of the pool, smallest first")
    parser.add_argument("--executor", choices=("ray", "local"), default="ray")
    parser.add_argument("--no-cells", action="store_true", help="for the driver's memory alone")
    args = parser.parse_args()
    sizes = [int(size) for size in args.rows.split(",")]
    seconds, peaks = {}, {}
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="lvd-growth-") as folder:
            root = Path(folder)
            write_pool(root, size)
            command = ("run", str(root / "growth.yaml"), "--executor", args.executor)
            peaks[size] = run(root, *command)
            if not args.no_cells:
                run(root, *command, "--set=dedup.search=cells", "--until=dedup")
            seconds[size] = seconds_of(root / "run")
            if args.no_cells:
                del seconds[size]["join by cells"]
            if not all(seconds[size].values()):
                raise SystemExit(f"nothing was done: {seconds[size]}\n{(root / 'log').read_text()}")
        peak = ", ".join(f"{name} {value / 1e6:.0f} MB" for name, value in peaks[size].items())
        print(f"{size:,} rows: {seconds[size]}, driver's peak: {peak}", file=sys.stderr, flush=True)
    small, large = sizes[0], sizes[-1]
    ratio = {name: seconds[large][name] / seconds[small][name] for name in seconds[large]}
    print(
        json.dumps(
            {
                "what": "growth of a run",
                "rows": sizes,
                "seconds": {str(size): seconds[size] for size in sizes},
                "per_row_ratio": {name: round(value * small / large, 3) for name, value in ratio.items()},
                "exponent": {
                    name: round(math.log(value) / math.log(large / small), 2) for name, value in ratio.items()
                },
                "driver_bytes_per_row": {
                    name: round((peaks[large][name] - peaks[small][name]) / (large - small), 1)
                    for name in peaks[large]
                },
            }
        )
    )


def write_pool(root: Path, num_rows: int) -> None:
    """Tars of pictures, their vectors, and a config over them."""
    rng = np.random.default_rng(0)
    directions = _unit(rng.standard_normal((NUM_DIRECTIONS, DIM)))
    (root / "pool").mkdir()
    with pq.ParquetWriter(root / "vectors.parquet", _VECTORS) as writer:
        for first in range(0, num_rows, TAR_IMAGES):
            count = min(TAR_IMAGES, num_rows - first)
            vectors = _unit(
                directions[rng.integers(NUM_DIRECTIONS, size=count)]
                + 0.12 * rng.standard_normal((count, DIM))
            )
            copies = np.flatnonzero(rng.random(count) < 0.01)
            vectors[copies] = _unit(vectors[copies - 1] + 0.001 * rng.standard_normal((len(copies), DIM)))
            _write_tar(root / "pool" / f"{first // TAR_IMAGES:05d}.tar", first, count)
            writer.write_table(_table(first, vectors))
    (root / "growth.yaml").write_text(yaml.safe_dump(_config(root), sort_keys=False))


_VECTORS = pa.schema([("key", pa.string()), ("embedding", pa.list_(pa.float16(), DIM))])


def _table(first: int, vectors: np.ndarray) -> pa.Table:
    tar = f"{first // TAR_IMAGES:05d}.tar"
    keys = [f"{tar}/{row:09d}.png" for row in range(first, first + len(vectors))]
    flat = pa.array(vectors.astype(np.float16).ravel())
    return pa.table({"key": keys, "embedding": pa.FixedSizeListArray.from_arrays(flat, DIM)}, _VECTORS)


def _config(root: Path) -> dict[str, object]:
    return {
        "name": "growth",
        "run_dir": str(root / "run"),
        "pools": {"web": {"role": "uncurated", "sources": [{"kind": "tars", "path": str(root / "pool")}]}},
        "describe": {
            "embed": {"embedder": f"precomputed:{root / 'vectors.parquet'}"},
            "descriptor": f"precomputed:{root / 'vectors.parquet'}",
        },
        "judge": {"min_side_px": 1},
        "dedup": {"phash_radius": None, "cosine_threshold": 0.99},
        "decontaminate": {"phash_radius": None},
        "cluster": {"num_clusters": 500, "iterations": 10},
    }


def _write_tar(path: Path, first: int, count: int) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for row in range(first, first + count):
            data = png(np.random.default_rng(row).integers(0, 256, (SIDE_PX, SIDE_PX), np.uint8))
            member = tarfile.TarInfo(f"{row:09d}.png")
            member.size = len(data)
            tar.addfile(member, BytesIO(data))


def png(grey: np.ndarray) -> bytes:
    """A stored grey PNG: an encoder that costs next to nothing."""
    rows = b"".join(b"\0" + line.tobytes() for line in grey)
    header = struct.pack(">IIBBBBB", grey.shape[1], grey.shape[0], 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def run(root: Path, *arguments: str) -> dict[str, int]:
    """Run `lvd`; returns the peaks of its own process's memory, bytes."""
    anonymous, status = 0, root / "status"
    with (root / "log").open("wb") as log:
        command = [sys.executable, "-c", LVD, str(status), *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        while process.poll() is None:
            anonymous = max(anonymous, _memory(Path(f"/proc/{process.pid}/status"), "RssAnon"))
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit((root / "log").read_text())
    return {"resident": _memory(status, "VmHWM"), "anonymous": anonymous}


def _memory(path: Path, field: str) -> int:
    """Bytes, or 0 of a process that has just ended."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def seconds_of(run_dir: Path) -> dict[str, float]:
    """Seconds of work of every line of the table, over all items, by their receipts."""
    found: dict[str, float] = defaultdict(float)
    ended: dict[str, float] = defaultdict(float)
    for path in (run_dir / "steps").glob("*/*/receipt.json"):
        receipt = json.loads(path.read_text())
        for line, names in LINES.items():
            if receipt["step"].startswith(names):
                found[line] += receipt["timings"]["work_s"]
        ended[receipt["step"]] = max(ended[receipt["step"]], receipt["timings"]["ended"])
    # The steps that it is made of are removed with their receipts, so it is timed by the clock.
    found["clustering"] = ended["cluster"] - ended["decontaminate_leaks"]
    return {line: round(found[line], 2) for line in (*LINES, "clustering")}


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
