"""Chains planted among real photographs: alarms name them, and other thresholds are answered in seconds."""

import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from chains import health_of, members_of, plant_chain, weakest_by_hand
from lvd_process import run_lvd, start_lvd

pytestmark = pytest.mark.accept

NUM_CHAINS, NUM_STEPS = 3, 40
THRESHOLDS = {"phash": 1 - 6 / 64, "cosine": 0.95}
FOLDERS = ("pool/photos", "pool/pets", "pool/posters", "imagenette/train")


@pytest.fixture(scope="module")
def chained(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over one pool: three cross-fades, then 7,691 photographs."""
    root, real = tmp_path_factory.mktemp("chains"), shared_dir / "real"
    rng = np.random.default_rng(0)
    photos = sorted((real / "pool/photos").iterdir())
    for number in range(NUM_CHAINS):
        first, last = rng.choice(len(photos), 2, replace=False)
        plant_chain(photos[first], photos[last], root / f"chain-{number}", num_steps=NUM_STEPS)
    folders = [root / f"chain-{number}" for number in range(NUM_CHAINS)] + [real / name for name in FOLDERS]
    sources = [
        {"kind": "folder", "path": str(folder), "key_prefix": f"{folder.parent.name}/{folder.name}/"}
        for folder in folders
    ]
    config = {
        "run_dir": str(root / "run"),
        "pools": {"web": {"role": "uncurated", "sources": sources}},
        "describe": {"descriptor": "gist"},
        "dedup": {"phash_radius": 6, "cosine_threshold": 0.95, "edge_floor": 0.9},
    }
    path = root / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    run_lvd(["run", str(path), "--executor", "local", "--until", "dedup"], log=root / "log")
    return root / "run"


def test_alarms_name_chains_and_their_weakest_edges(chained: Path, tmp_path: Path) -> None:
    found = ask(chained, tmp_path, "--threshold", "0.95")
    health, members = health_of(chained), members_of(chained)
    alarms = {alarm["component"]: alarm for alarm in found["alarms"]}
    for chain in range(NUM_CHAINS):
        frames = set(range(chain * NUM_STEPS, (chain + 1) * NUM_STEPS))
        [number] = [n for n, rows in members.items() if rows >= frames]
        row = health[number]
        assert row["alarm"]
        least, pairs = weakest_by_hand(chained, members[number], THRESHOLDS)
        assert frozenset((row["weakest_a"], row["weakest_b"])) in pairs
        assert np.isclose(row["weakest"] / THRESHOLDS[row["weakest_kind"]], least)
        assert alarms[number]["weakest_edge"]["score"] == row["weakest"]
        ends = [alarms[number]["weakest_edge"][end] for end in ("a", "b")]
        assert any(f"chain-{chain}-" in end for end in ends)
        print(json.dumps(alarms[number]))
    print(f"{sum(row['alarm'] for row in health)} alarms among {len(health)} components")


@pytest.mark.parametrize("threshold", ["0.92", "0.97"])
def test_other_thresholds_are_answered_in_seconds(chained: Path, tmp_path: Path, threshold: str) -> None:
    start, before = time.monotonic(), cpu_seconds()
    found = ask(chained, tmp_path, "--threshold", threshold)
    wall_s, cpu_s = time.monotonic() - start, cpu_seconds() - before
    print(f"lvd dedup --threshold {threshold}: {wall_s:.1f} s, of these {cpu_s:.1f} s of work")
    print(f"dropped {found['dropped']}, components {found['components']}")
    assert found["newly_dropped" if threshold < "0.95" else "newly_kept"] > 0
    assert cpu_s < 10  # with the import of torch; waiting for a busy machine does not count


def cpu_seconds() -> float:
    """Of all processes that were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def ask(run_dir: Path, tmp_path: Path, *arguments: str) -> Any:
    """`lvd dedup` as a process of its own."""
    log = tmp_path / "answer.json"
    log.unlink(missing_ok=True)
    lvd = start_lvd(["dedup", str(run_dir), *arguments, "--json"], log=log)
    assert lvd.wait(120) == 0, lvd.text()
    return json.loads(lvd.text())
