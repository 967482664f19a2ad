"""A cross-fade between unlike pictures: one component, an alarm that names its weakest edge, and a cut."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chains import health_of, members_of, plant_chain, weakest_by_hand

from pipelines.config import validate
from pipelines.demo.concepts import CONCEPTS
from pipelines.demo.pictures import draw
from pipelines.progress import Progress
from pipelines.report.write import write_report
from pipelines.run import run
from pipelines.what_if import Asked, what_if, what_if_lines

NUM_STEPS = 40
DEDUP = {"phash_radius": 6, "cosine_threshold": 0.955, "edge_floor": 0.9}
THRESHOLDS = {"phash": 1 - 6 / 64, "cosine": 0.955}


def config_of(root: Path, run_dir: Path, **dedup: Any) -> Any:
    """A run that only looks for copies; one pool, so that its edges lie in one file."""
    sources = [{"kind": "folder", "path": str(root / name)} for name in ("chain", "drawn")]
    data = {
        "run_dir": str(run_dir),
        "pools": {"web": {"role": "uncurated", "sources": sources}},
        "describe": {"descriptor": "gist"},
        "dedup": DEDUP | dedup,
        "executor": {"kind": "local"},
    }
    return validate(data, where="the test's config")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chains")
    (root / "drawn").mkdir()
    files = []
    for number, concept in enumerate(CONCEPTS[:8]):
        image = draw(concept, np.random.default_rng(number))
        files.append(root / "drawn" / f"drawn-{number}.png")
        image.save(files[-1])
    plant_chain(files[0], files[5], root / "chain", num_steps=NUM_STEPS)
    return root


@pytest.fixture(scope="module")
def chained(root: Path) -> Path:
    run(config_of(root, root / "run"), progress=Progress(quiet=True))
    return root / "run"


def test_the_alarm_names_the_component_and_its_weakest_edge(chained: Path, root: Path) -> None:
    # The chain's source comes first, so a frame's number is its global row.
    [number] = [n for n, rows in members_of(chained).items() if rows >= set(range(NUM_STEPS))]
    health = health_of(chained)[number]
    assert health["alarm"]
    assert [row["alarm"] for row in health_of(chained)].count(True) == 1
    assert health["diameter_is_exact"]
    assert health["diameter"] >= 3
    least, pairs = weakest_by_hand(chained, members_of(chained)[number], THRESHOLDS)
    assert frozenset((health["weakest_a"], health["weakest_b"])) in pairs
    assert np.isclose(health["weakest"] / THRESHOLDS[health["weakest_kind"]], least)
    assert health["ends_score"] < 0.85 * max(THRESHOLDS.values())

    found = what_if(str(chained), Asked(threshold=0.955))
    [alarm] = found["alarms"]
    names = sorted((root / "chain").iterdir()) + sorted((root / "drawn").iterdir())
    keys = {f"web/{names[health[end]].name}" for end in ("weakest_a", "weakest_b")}
    assert {alarm["weakest_edge"]["a"], alarm["weakest_edge"]["b"]} == keys
    assert alarm["component"] == number
    assert any("weakest edge" in line and all(key in line for key in keys) for line in what_if_lines(found))
    page = Path(write_report(str(chained))).read_text("utf-8")
    assert "<strong>Alarm.</strong>" in page
    assert all(f"<bdi>{key}</bdi>" in page for key in keys)


def test_a_cut_leaves_pieces_that_are_alike(chained: Path, root: Path) -> None:
    copy = root / "cut"
    shutil.copytree(chained, copy)
    run(config_of(root, copy, cut_chains=True), until="dedup", progress=Progress(quiet=True))
    pieces = [rows & set(range(NUM_STEPS)) for rows in members_of(copy).values()]
    pieces = [rows for rows in pieces if rows]
    assert len(pieces) > 1
    for piece in pieces:  # each is a stretch of the fade
        assert sorted(piece) == list(range(min(piece), max(piece) + 1))
    for health in health_of(copy):
        share = health["least_score"] / max(THRESHOLDS.values())
        assert share >= 0.8
    found = what_if(str(copy), Asked())
    assert found["newly_dropped"] == found["newly_kept"] == 0
