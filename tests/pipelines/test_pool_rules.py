"""Curated pools that only search, and such as only enter."""

import json
from pathlib import Path
from typing import Any

import pytest

from curation.errors import ConfigError
from pipelines.answers.verify import verify


def rows_by_pool(run_dir: Path, rows_of: Any) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows_of(run_dir, "lineage").to_pylist():
        found.setdefault(row["pool"], []).append(row)
    return found


def test_a_pool_that_only_searches_displaces_nothing(
    tmp_path: Path, finished: Path, configure: Any, run_quietly: Any, rows_of: Any
) -> None:
    before = rows_by_pool(finished, rows_of)
    displaced = {r["key"] for r in before["web"] if (r["stage"], r["by_pool"]) == ("dedup", "trusted")}
    assert displaced, "the web has copies of curated images"
    result = run_quietly(configure(tmp_path / "run", "pools.trusted.include=false"))
    assert result.exit_code == 0
    rows = rows_by_pool(tmp_path / "run", rows_of)
    assert "curated" not in {row["reason"] for row in rows["trusted"]}
    assert {row["stage"] for row in rows["trusted"]} <= {"describe", "judge", "select"}
    assert any(row["reason"] == "query_only" for row in rows["trusted"])
    assert not [row for row in rows["web"] if row["stage"] == "dedup" and row["by_pool"] == "trusted"]
    now = {row["key"]: row for row in rows["web"]}
    kept = [now[key] for key in displaced if now[key]["decision"] == "kept"]
    assert kept, "what it is a copy of resembles it more than anything else"
    assert all(row["reason"] == "retrieved_by_sample" for row in kept)
    assert verify(str(tmp_path / "run")) == []


def test_the_report_is_of_the_config_that_asked_last(
    tmp_path: Path, configure: Any, run_quietly: Any
) -> None:
    """Also where another config came to the same dataset in between."""
    told = []
    for radius in (6, 5, 6):
        found = run_quietly(configure(tmp_path / "run", f"dedup.phash_radius={radius}"))
        report = tmp_path / "run" / found.manifest["dataset_dir"] / "report.html"
        told.append(f"at most {radius} of 64 bits apart" in report.read_text("utf-8"))
    assert told == [True] * 3


def leaks(rows: dict[str, list[dict[str, Any]]], pool: str) -> list[str]:
    return [row["key"] for row in rows[pool] if row["reason"] == "leaks_holdout"]


@pytest.mark.parametrize(
    "settings",
    [
        ("pools.trusted.include=false", "decontaminate.by=image"),
        ("decontaminate.curated=false", "decontaminate.by=image"),
        ("decontaminate.curated=false", "decontaminate.by=component"),
    ],
)
def test_curated_images_that_are_evaluation_images_may_search(
    settings: tuple[str, str], tmp_path: Path, configure: Any, run_quietly: Any, rows_of: Any
) -> None:
    """As in DINOv2, where sets that search are sets that models are evaluated on."""
    trusted = configure(tmp_path / "run").pools["trusted"].sources[0].path
    held_out = {"role": "holdout", "sources": [{"kind": "folder", "path": trusted}]}
    found = []
    for name, more in (("all", settings[1:]), ("spared", settings)):
        run_quietly(configure(tmp_path / name, f"pools.held_out={json.dumps(held_out)}", *more))
        found.append(rows_by_pool(tmp_path / name, rows_of))
    every, spared = found
    assert leaks(every, "trusted")
    assert {row["decision"] for row in every["trusted"] + every["web"]} == {"dropped"}
    assert leaks(spared, "trusted") == []
    assert leaks(spared, "web")
    assert any(row["reason"] == "retrieved_by_sample" for row in spared["web"])
    assert any(row["reason"] in ("curated", "query_only") for row in spared["trusted"])


def test_a_pool_may_enter_and_bring_in_nothing(
    tmp_path: Path, configure: Any, run_quietly: Any, rows_of: Any
) -> None:
    result = run_quietly(configure(tmp_path / "run", "pools.trusted.retrieve={method: none}"))
    assert result.exit_code == 0
    rows = rows_by_pool(tmp_path / "run", rows_of)
    assert "curated" in {row["reason"] for row in rows["trusted"]}
    assert {row["decision"] for row in rows["web"]} == {"dropped"}
    assert result.manifest["counts"]["web"]["retrieved"] == 0


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["pools.web.include=false"], "`include` is for curated pools"),
        (["pools.trusted.include=false", "pools.trusted.retrieve={method: none}"], "neither enters nor"),
    ],
)
def test_rules_that_mean_nothing_are_refused(
    tmp_path: Path, configure: Any, overrides: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        configure(tmp_path / "run", *overrides)
