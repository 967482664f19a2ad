"""`lvd plan` against reality: what it foretells of a run, and what that then costs, for several sizes.

python tests/benchmarks/bench_plan.py REAL [--sizes 1000,3000,8000] [--embedder gist] [--like-smallest]

REAL has photographs in `imagenette/{train,val}` and `pool`. Each size is planned and then run, in processes
of their own, one straight after the other. Compared are seconds of all cores by the receipts, and beside them
seconds on the clock: other processes of a machine that is shared make the clock run, and cores less so. With
`--like-smallest` the larger sizes are planned from the receipts of the smallest run. The image counts are
spread over the pools in one proportion.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

# The packages before the tests' folders of the same names.
sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from drawn_vit import drawn, small  # noqa: E402

LVD = (sys.executable, "-m", "pipelines.cli")
# Share of each pool, and where its files lie.
POOLS = {
    "trusted": ("curated", 0.3, "imagenette/train"),
    "web": ("uncurated", 0.6, "pool"),
    "exam": ("holdout", 0.1, "imagenette/val"),
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("real", type=Path)
    parser.add_argument("--sizes", default="1000,3000,8000")
    parser.add_argument("--embedder", default="gist", help="gist, or vit for a small one with drawn weights")
    parser.add_argument("--like-smallest", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(given.real, Path(folder), given)
    print(json.dumps({"what": "plan against run", "embedder": given.embedder, "sizes": rows}))


def measure(real: Path, folder: Path, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Plan and run every size."""
    rows: list[dict[str, Any]] = []
    smallest: Path | None = None
    for size in map(int, given.sizes.split(",")):
        config = write_config(real, folder / str(size), size, embedder=given.embedder)
        like = ["--like", str(smallest)] if given.like_smallest and smallest else []
        plan = json.loads(lvd("plan", str(config), "--json", *like))
        lvd("run", str(config))
        run_dir = folder / str(size) / "run"
        smallest = smallest or run_dir
        rows.append(compare(size, plan, run_dir))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def write_config(real: Path, folder: Path, size: int, *, embedder: str) -> Path:
    """A config over so many photographs, drawn by lot and copied."""
    pools = {}
    for name, (role, share, place) in POOLS.items():
        files = sorted(path for path in (real / place).rglob("*") if path.is_file())
        chosen = np.random.default_rng(0).permutation(len(files))[: round(size * share)]
        target = folder / name
        target.mkdir(parents=True)
        for i in chosen.tolist():
            shutil.copy(files[i], target / f"{i:05d}{files[i].suffix}")
        pools[name] = {"role": role, "sources": [{"kind": "folder", "path": str(target)}]}
    embed: dict[str, Any] = {"embedder": embedder}
    if embedder == "vit":
        torch.save(drawn(small(dim=192, num_heads=3)).state_dict(), folder / "vit.pth")
        embed = {"embedder": f"vit:{folder / 'vit.pth'}", "image_size_px": 224}
    data = {
        "run_dir": str(folder / "run"),
        "pools": pools,
        "ingest": {"part_rows": 500},
        "describe": {"embed": embed, "descriptor": "gist"},
        "dedup": {"cosine_threshold": 0.95},
        "cluster": {"num_clusters": 50},
        "executor": {"kind": "local"},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def lvd(*arguments: str) -> str:
    """Run a command; returns what it printed."""
    return subprocess.run([*LVD, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def compare(size: int, plan: dict[str, Any], run_dir: Path) -> dict[str, Any]:
    """Foretold and measured seconds, in all and by step."""
    measured: dict[str, dict[str, float]] = {}
    for file in run_dir.glob("steps/*/*/receipt.json"):
        receipt = json.loads(file.read_text())
        own = measured.setdefault(receipt["step"], {"cpu_s": 0.0, "work_s": 0.0})
        own["cpu_s"] += receipt["timings"]["cpu_s"]
        own["work_s"] += receipt["timings"]["work_s"] + receipt["timings"]["publish_s"]
    foretold: dict[str, dict[str, float]] = {}
    for step in plan["steps"]:
        own = foretold.setdefault(step["name"], {"cpu_s": 0.0, "work_s": 0.0})
        own["cpu_s"] += step["cpu_s"] or 0.0
        own["work_s"] += step["work_s"] or 0.0
    found: dict[str, Any] = {"images": size}
    for what in ("cpu_s", "work_s"):
        plans, runs = (sum(one[what] for one in some.values()) for some in (foretold, measured))
        found[what] = {"plan": round(plans, 2), "run": round(runs, 2), "ratio": round(plans / runs, 3)}
    found["cpu_s_by_step"] = {
        name: [round(foretold.get(name, {}).get("cpu_s", 0), 2), round(own["cpu_s"], 2)]
        for name, own in measured.items()
        if own["cpu_s"] > 0.2
    }
    return found


if __name__ == "__main__":
    main()
