"""What another threshold would decide: the same as a run with it, and nothing is written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from curation.dedup.edges import Edges
from curation.errors import ConfigError
from pipelines.answers.what_if import Asked, _alarm_line, _edge_lines, _nearest, what_if, what_if_lines
from pipelines.cli.main import main


def decided(run_dir: Path) -> list[tuple[Path, int, int]]:
    """What lies in a run directory, and since when."""
    return sorted((path, path.stat().st_mtime_ns, path.stat().st_size) for path in run_dir.rglob("*"))


def newest(run_dir: Path, name: str) -> Path:
    """A file of the components that were decided last."""
    return max(run_dir.glob(f"steps/dedup_components/*/{name}"), key=lambda path: path.stat().st_mtime)


def dropped(run_dir: Path) -> set[int]:
    copies = pq.read_table(newest(run_dir, "copies.parquet")).to_pylist()
    return {row["row"] for row in copies if row["reason"] is not None}


def test_the_runs_own_thresholds_change_nothing(finished: Path) -> None:
    before = decided(finished)
    found = what_if(str(finished), Asked())
    assert found["thresholds"]["now"] == found["thresholds"]["then"]
    assert found["components"]["now"] == found["components"]["then"] > 0
    assert found["dropped"]["now"] == found["dropped"]["then"] == len(dropped(finished))
    assert found["newly_dropped"] == found["newly_kept"] == 0
    assert decided(finished) == before


@pytest.mark.parametrize(
    ("asked", "overrides"),
    [
        (Asked(threshold=0.92), ["dedup.cosine_threshold=0.92"]),
        (Asked(threshold=0.99, phash_radius=2), ["dedup.cosine_threshold=0.99", "dedup.phash_radius=2"]),
    ],
)
def test_equals_a_run_with_these_thresholds(
    finished: Path, tmp_path: Path, configure: Any, run_quietly: Any, *, asked: Asked, overrides: list[str]
) -> None:
    found = what_if(str(finished), asked)
    now = dropped(finished)
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    run_quietly(configure(copy, *overrides), until="dedup")
    then = dropped(copy)
    assert found["dropped"] == {"now": len(now), "then": len(then)}
    assert (found["newly_dropped"], found["newly_kept"]) == (len(then - now), len(now - then))
    assert found["newly_dropped"] + found["newly_kept"] > 0
    assert len(found["examples_newly_kept"]) == min(5, found["newly_kept"])


def test_it_answers_for_the_config_of_the_dataset(
    finished: Path, tmp_path: Path, configure: Any, run_quietly: Any
) -> None:
    """And not for that of a run that has begun since, whose dataset is not there."""
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    run_quietly(configure(copy, "dedup.cosine_threshold=0.92"), until="judge")
    assert what_if(str(copy), Asked()) == what_if(str(finished), Asked())


def test_examples_lie_on_both_sides_of_the_threshold(finished: Path) -> None:
    about = what_if(str(finished), Asked(threshold=0.94))["edges"]["cosine"]
    above = [edge["score"] for edge in about["just_above"]]
    below = [edge["score"] for edge in about["just_below"]]
    assert about["saved_from"] <= min(below) <= max(below) < 0.94 <= min(above)
    assert above == sorted(above)
    assert below == sorted(below, reverse=True)
    edges = [pq.read_table(path) for path in finished.glob("steps/dedup_edges/*/edges.parquet")]
    scores = np.concatenate([table["score"].to_numpy() for table in edges])
    kinds = np.concatenate([np.array(table["kind"].to_pylist()) for table in edges])
    cosines = np.sort(scores[kinds == "cosine"])
    assert above[0] == cosines[cosines >= 0.94].min()
    assert below[0] == cosines[cosines < 0.94].max()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Asked(threshold=0.89), ["0.89", "0.9 (dedup.edge_floor", "Set dedup.edge_floor"]),
        (Asked(threshold=1.01), ["1.01", "to 1"]),
        (Asked(phash_radius=7), ["Got: 7", "0 to 6 (dedup.phash_radius"]),
        (Asked(pca_radius=3), ["has no edges by pca_radius"]),
    ],
)
def test_what_was_not_saved_is_an_error(finished: Path, asked: Asked, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        what_if(str(finished), asked)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_run_without_edges_is_an_error(tmp_path: Path, configure: Any, run_quietly: Any) -> None:
    with pytest.raises(ConfigError, match="no run directory"):
        what_if(str(tmp_path), Asked())
    run_quietly(configure(tmp_path / "run"), until="ingest")
    with pytest.raises(ConfigError, match=r"has no saved edges.*describe.*--until dedup"):
        what_if(str(tmp_path / "run"), Asked())


def test_on_the_command_line(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dedup", str(finished), "--threshold", "0.92", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["thresholds"]["then"]["cosine"] == 0.92
    assert main(["dedup", str(finished), "--threshold", "0.92"]) == 0
    text = capsys.readouterr().out
    assert text.splitlines() == what_if_lines(found)
    assert "cosine, just below 0.92:" in text
    assert main(["dedup", str(finished), "--threshold", "0.2"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_pca_hashes_and_cut_chains(
    finished: Path, tmp_path: Path, configure: Any, run_quietly: Callable[..., Any]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    (copy / "manifest.json").unlink()  # its dataset has no PCA hashes
    overrides = [
        "dedup.pca_radius=6",
        "dedup.cut_chains=true",
        "dedup.alarm_below=1.0",
        "decontaminate.pca_radius=4",
    ]
    run_quietly(configure(copy, *overrides), until="decontaminate")
    found = what_if(str(copy), Asked(pca_radius=3))
    assert found["thresholds"]["then"]["pca_hash"] == 1 - 3 / 64
    assert found["edges"]["pca_hash"]["just_above"]
    assert found["dropped"]["then"] <= found["dropped"]["now"]
    hashes = [pq.read_table(path)["pca_hash"] for path in copy.glob("steps/pca_hash/*/hashes.parquet")]
    assert sum(len(column.drop_null()) for column in hashes) > 200
    health = pq.read_table(newest(copy, "health.parquet"))
    assert set(health["weakest_kind"].to_pylist()) <= {"exact", "phash", "cosine", "pca_hash"}


def test_an_approximate_search_says_what_it_finds(
    finished: Path, tmp_path: Path, configure: Any, run_quietly: Any
) -> None:
    assert what_if(str(finished), Asked())["recall"] == []
    config = configure(tmp_path / "run", "dedup.search=cells", "dedup.cells.num_cells=4")
    run_quietly(config, until="dedup")
    found = what_if(str(tmp_path / "run"), Asked())
    [recall] = found["recall"]
    assert (recall["step"], recall["num_cells"]) == ("dedup_cell_edges", 4)
    assert recall["estimate"] >= 0.99
    assert any(f"of {recall['num_pairs']:,} pairs of sampled images" in line for line in what_if_lines(found))
    unknown = found | {"recall": [recall | {"estimate": None, "num_pairs": 0}]}
    assert any("recall unknown" in line for line in what_if_lines(unknown))


def test_edges_that_a_limit_lets_go_are_counted(
    finished: Path, tmp_path: Path, configure: Any, run_quietly: Any
) -> None:
    assert what_if(str(finished), Asked())["edges_dropped"] == 0
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    manifest = run_quietly(configure(copy, "dedup.max_edges_per_row=1")).manifest
    found = what_if(str(copy), Asked())
    assert found["edges_dropped"] == manifest["edges_dropped"] > 0
    assert any("edges go, which are not asked" in line for line in what_if_lines(found))
    every, kept = (
        sum(pq.read_table(path).num_rows for path in run_dir.glob("steps/dedup_edges/*/edges.parquet"))
        for run_dir in (finished, copy)
    )
    assert kept > every  # those with and without a limit lie beside each other
    assert manifest["edges_dropped"] <= every
    report = (copy / manifest["dataset_dir"] / "report.html").read_text("utf-8")
    assert f"let {manifest['edges_dropped']:,} edges go" in report


def test_a_pair_is_named_once() -> None:
    edges = Edges(
        np.array([1, 1, 1, 2], np.int64),
        np.array([5, 5, 6, 3], np.int64),
        np.array([0.95, 0.96, 0.97, 0.99]),
        np.zeros(4, np.int8),
    )
    above = _nearest(edges, sign=1)
    assert list(zip(above.a.tolist(), above.b.tolist(), above.score.tolist(), strict=True)) == [
        (1, 5, 0.95),
        (1, 6, 0.97),
        (2, 3, 0.99),
    ]
    assert _nearest(edges, sign=-1).score.tolist() == [0.99, 0.97, 0.96]


def test_a_component_of_two_names_its_pair_once() -> None:
    pair = {"a": "web/x", "b": "web/y"}
    alarm = {"component": 0, "size": 2, "diameter": 1, "diameter_is_exact": True}
    alarm |= {"weakest_edge": {**pair, "kind": "phash", "score": 1.0}, "ends": {**pair, "score": 0.4}}
    [line] = [_alarm_line(alarm)]
    assert line.count("web/x") == line.count("web/y") == 1
    assert "joined by phash 1.0000" in line


def test_a_threshold_above_one_is_no_cosine(finished: Path) -> None:
    for threshold in (1.5, float("nan")):
        with pytest.raises(ConfigError, match="is a cosine, which no pair of images exceeds") as caught:
            what_if(str(finished), Asked(threshold=threshold))
        assert "edge_floor to the threshold" not in str(caught.value)


def test_a_pair_near_two_thresholds_is_one_line() -> None:
    def edge(a: str, b: str, score: float) -> dict[str, Any]:
        return {"a": a, "b": b, "score": score}

    edges = {
        "phash": {
            "threshold": 1 - 6 / 64,
            "just_above": [edge("a", "b", 1 - 5 / 64), edge("a", "c", 1 - 2 / 64)],
            "just_below": [],
        },
        "cosine": {
            "threshold": 0.9,
            "just_above": [edge("b", "a", 0.91)],
            "just_below": [edge("c", "a", 0.89), edge("d", "e", 0.88)],
        },
    }
    assert _edge_lines(edges) == [
        "phash, just above 6 bits:",
        "  5 bits  a – b  (cosine 0.9100, just above its threshold)",
        "  2 bits  a – c  (cosine 0.8900, just below its threshold)",
        "phash, just below 6 bits:",
        "  none saved",
        "cosine, just above 0.9:",
        "  those named above",
        "cosine, just below 0.9:",
        "  0.8800  d – e",
    ]
