"""A cross-fade between unlike pictures: one component, an alarm that names its weakest edge, and a cut."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from chains import health_of, members_of, newest, plant_chain, weakest_by_hand

from curation.errors import ConfigError
from pipelines.answers.what_if import Asked, what_if, what_if_lines
from pipelines.config.run_config import validate
from pipelines.demo.concepts import CONCEPTS
from pipelines.demo.pictures import draw
from pipelines.engine.progress import Progress
from pipelines.report.write import write_report
from pipelines.run import run

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


LEAKS = {"phash_radius": None, "cosine_threshold": 0.999, "by": "component"}


def leaks_of(root: Path, name: str, *, component_threshold: float | None) -> dict[int, bool]:
    """Rows that a run over the chain drops as leaks of its first frame; whether by their component."""
    data = config_of(root, root / name, phash_radius=None, cosine_threshold=0.999).model_dump(mode="json")
    evaluation = root / "evaluation"
    evaluation.mkdir(exist_ok=True)
    shutil.copy(next(iter(sorted((root / "chain").iterdir()))), evaluation)
    data["pools"]["held_out"] = {
        "role": "holdout",
        "sources": [{"kind": "folder", "path": str(evaluation)}],
    }
    data["decontaminate"] = LEAKS | {"component_threshold": component_threshold}
    config = validate(data, where="the test's config")
    run(config, until="decontaminate", progress=Progress(quiet=True))
    table = pq.read_table(newest(root / name, "decontaminate_leaks", "leaks.parquet"))
    assert set(table["holdout"].to_pylist()) == {NUM_STEPS + 8}
    return dict(zip(table["row"].to_pylist(), table["by_component"].to_pylist(), strict=True))


def test_a_leak_condemns_what_hangs_together_at_a_threshold_of_its_own(root: Path) -> None:
    """DINOv2 takes components above 0.45 here, and above 0.6 among copies."""
    of_copies = leaks_of(root, "of-copies", component_threshold=None)
    wide = leaks_of(root, "wide", component_threshold=0.955)
    edges = pq.read_table(newest(root / "wide", "dedup_edges", "edges.parquet")).to_pylist()
    expected = {row for row, by_component in wide.items() if not by_component}
    assert 0 in expected
    for _ in range(NUM_STEPS):
        for edge in edges:
            if edge["score"] >= 0.955 and expected & {edge["a"], edge["b"]}:
                expected |= {edge["a"], edge["b"]}
    assert set(wide) == expected > set(of_copies)
    assert len(expected) >= NUM_STEPS > len(of_copies)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"component_threshold": 0.89}, "below the cosine from which dedup saves edges"),
        ({"component_threshold": 0.95, "by": "image"}, "no meaning by image"),
    ],
)
def test_components_without_edges_are_refused(root: Path, change: dict[str, Any], said: str) -> None:
    data = config_of(root, root / "refused").model_dump(mode="json")
    data["decontaminate"] = LEAKS | change
    with pytest.raises(ConfigError, match=said):
        validate(data, where="the test's config")
