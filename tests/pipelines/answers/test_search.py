"""Nearest images of a run: against plain products of all its vectors, by id, by key and by file."""

import html
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curation.errors import ConfigError, SourceError
from pipelines.answers.finished_run import require_run
from pipelines.answers.nearest import NearestQuery, search, search_lines
from pipelines.cli.main import main
from pipelines.report.gallery import write_gallery
from pipelines.rows.parts import read_array


@pytest.fixture(scope="module")
def rows(finished: Path, rows_of: Callable[..., Any]) -> list[dict[str, Any]]:
    return rows_of(finished, "lineage").to_pylist()


def products(run_dir: Path, row: int, *, itself: bool = False) -> np.ndarray:
    made = require_run(str(run_dir)).made
    assert made is not None
    vectors = np.concatenate([read_array(part.embeddings) for part in made.parts]).astype(np.float64)
    score = vectors @ vectors[row]
    score[~vectors.any(axis=1)] = -np.inf
    if not itself:
        score[row] = -np.inf
    return score


def a_kept_row(rows: list[dict[str, Any]]) -> int:
    return next(i for i, row in enumerate(rows) if row["reason"] == "retrieved_by_sample")


@pytest.mark.parametrize("k", [1, 7, 10_000])
def test_nearest_is_the_order_of_all_products(finished: Path, rows: list[dict[str, Any]], k: int) -> None:
    row = a_kept_row(rows)
    score = products(finished, row)
    there = np.flatnonzero(score > -np.inf)
    expected = sorted(there.tolist(), key=lambda i: (-score[i], rows[i]["image_id"], i))[:k]
    answer = search(str(finished), NearestQuery(image=rows[row]["image_id"], k=k))
    assert list(answer.rows) == expected
    assert [hit["score_with_query"] for hit in answer.hits] == [score[i] for i in expected]


def test_pools_and_the_dataset_alone(finished: Path, rows: list[dict[str, Any]]) -> None:
    row = a_kept_row(rows)
    score = products(finished, row)
    for asked, allowed in (
        (NearestQuery(image=rows[row]["image_id"], pool="trusted"), [r["pool"] == "trusted" for r in rows]),
        (NearestQuery(image=rows[row]["image_id"], kept=True), [r["decision"] == "kept" for r in rows]),
    ):
        best = np.where(allowed, score, -np.inf)
        answer = search(str(finished), asked)
        assert [hit["score_with_query"] for hit in answer.hits] == np.sort(best)[::-1][:10].tolist()


def test_a_file_of_the_run_is_its_own_nearest(finished: Path, rows: list[dict[str, Any]]) -> None:
    row = rows[a_kept_row(rows)]
    answer = search(str(finished), NearestQuery(file=row["uri"], k=3))
    assert answer.query == {"file": row["uri"], "image_id": row["image_id"]}
    assert answer.hits[0]["image_id"] == row["image_id"]
    assert answer.hits[0]["score_with_query"] == pytest.approx(1, abs=2e-3)
    assert search_lines(answer)[0].startswith(
        f"nearest to {row['uri']}, id {row['image_id']}, by the embedding gist"
    )


def test_a_file_of_the_run_needs_no_model(
    finished: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.models.embed_file.embed_file", None)
    row = a_kept_row(rows)
    answer = search(str(finished), NearestQuery(file=rows[row]["uri"], k=1))
    assert answer.hits[0]["score_with_query"] == products(finished, row, itself=True)[row]


def test_another_file_is_embedded(finished: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    row, again = rows[a_kept_row(rows)], tmp_path / "again.png"
    Image.open(row["uri"]).convert("RGB").save(again)
    answer = search(str(finished), NearestQuery(file=str(again), k=1))
    assert answer.query["image_id"] != row["image_id"]
    assert answer.hits[0]["image_id"] == row["image_id"]
    assert answer.hits[0]["score_with_query"] > 0.95  # it was decoded at another scale


def test_the_page_is_whole_and_closed(finished: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    row, page = rows[a_kept_row(rows)], tmp_path / "page.html"
    for what in (["--id", row["image_id"]], ["--image", row["uri"]]):
        assert main(["search", str(finished), *what, "-k", "5", "--gallery", str(page)]) == 0
        text = page.read_text()
        assert text.count("data:image/jpeg;base64,") == 6
        assert "default-src 'none'" in html.unescape(text)
        assert "http" not in text.replace("http-equiv", "")


def test_json_has_the_lineage_of_every_hit(
    finished: Path, rows: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    row = rows[a_kept_row(rows)]
    assert main(["search", str(finished), "--id", row["key"], "--json", "-k", "4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["query"] == row
    for hit in found["hits"]:
        assert {key: hit[key] for key in row} == rows[hit["row"]]


def test_what_cannot_be_searched_is_said(finished: Path, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    broken = next(row for row in rows if row["stage"] == "describe" and row["image_id"])
    (tmp_path / "page.html").write_text("<html>")
    for asked, kind, said in (
        (NearestQuery(image=broken["image_id"]), ConfigError, "no vector"),
        (NearestQuery(image=rows[0]["image_id"], k=0), ConfigError, "no neighbours"),
        (NearestQuery(image=rows[0]["image_id"], pool="moon"), ConfigError, "no pool"),
        (NearestQuery(file="nowhere.jpg"), SourceError, "cannot be read"),
        (NearestQuery(file=str(tmp_path / "page.html")), SourceError, "cannot be decoded"),
    ):
        with pytest.raises(kind, match=said):
            search(str(finished), asked)


def test_a_file_to_search_by_is_a_regular_one_of_bounded_size(
    finished: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(1 << 40)
    (tmp_path / "proc.jpg").symlink_to("/proc/self/status")  # of no size, with bytes in it
    for name, said in (
        ("pipe.jpg", "cannot be read. Got: not a regular file"),
        ("zero.jpg", "cannot be read. Got: not a regular file"),
        ("large.jpg", "1,099,511,627,776 bytes, more than 50,000,000"),
        ("proc.jpg", "cannot be decoded"),
        (".", "cannot be read. Got: Is a directory"),
    ):
        with pytest.raises(SourceError) as caught:
            search(str(finished), NearestQuery(file=str(tmp_path / name)))
        assert said in str(caught.value)
    row, page = rows[a_kept_row(rows)], tmp_path / "page.html"
    answer = search(str(finished), NearestQuery(file=row["uri"], k=1))
    swapped = replace(answer, asked=NearestQuery(file=str(tmp_path / "pipe.jpg"), k=1))
    with pytest.raises(SourceError, match="not a regular file"):
        write_gallery(swapped, str(page))
    assert not page.exists()
