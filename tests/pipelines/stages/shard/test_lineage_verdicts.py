"""Verdicts of all stages become one a row, by hand; and what is counted of them adds up."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curation import storage
from curation.schema import COPIES, DESCRIBED, IMAGES, LEAKS, LINEAGE, SELECTION, VERDICTS
from curation.select import BY_SAMPLE, CURATED, DEAD, HOLDOUT, NOT_RETRIEVED
from pipelines.engine.step import Attempt, FileRef
from pipelines.rows.parts import Part
from pipelines.stages.retrieve.select import Outcomes
from pipelines.stages.shard import lineage
from pipelines.stages.shard.shard import CHANGED

# pool, outcome, cluster, (shard, position); of row 8 the source has changed.
ROWS: list[tuple[str, int, int, tuple[int, int] | None]] = [
    ("mine", CURATED, 0, (0, 1)),
    ("mine", CURATED, 1, (1, 0)),
    ("web", BY_SAMPLE, 0, (0, 0)),
    ("web", DEAD, -1, None),  # a copy of row 2
    ("web", DEAD, -1, None),  # a copy and a leak: the leak counts
    ("web", DEAD, -1, None),  # refused by describe
    ("web", DEAD, -1, None),  # refused by judge
    ("web", NOT_RETRIEVED, 1, None),
    ("web", BY_SAMPLE, 1, (-1, CHANGED)),
    ("exam", HOLDOUT, -1, None),
]
POOLS = {"mine": "curated", "web": "uncurated", "exam": "holdout"}
REASONS = [
    "curated", "curated", "retrieved_by_sample", "near_copy", "leaks_holdout", "truncated", "too_small",
    "not_retrieved", "source_changed", "holdout",
]  # fmt: skip


def saved(path: Path, value: pa.Table | np.ndarray) -> FileRef:
    if isinstance(value, pa.Table):
        storage.write_table(path, value)
    else:
        np.save(path, value)
    sha256, num_bytes = storage.sha256_file(str(path))
    return FileRef(str(path), num_bytes, sha256)


def part(folder: Path, number: int, pool: str, rows: range) -> Part:
    image = {"path": "", "version": "", "offset": 0, "num_bytes": 1, "sidecars": [], "reason": None}
    images = [image | {"key": f"{i}.jpg", "uri": f"/{i}"} for i in rows]
    seen = dict.fromkeys(DESCRIBED.names) | {"num_bytes": 1, "has_embedding": True, "warnings": []}
    seen |= {"format": "JPEG", "width": 8, "height": 6}
    described = [seen | {"sha256": bytes([i]) * 32, "reason": "truncated" if i == 5 else None} for i in rows]
    judged = [{"reason": "too_small" if i == 6 else None} for i in rows]
    files = (
        saved(folder / f"{number}-{name}.parquet", pa.Table.from_pylist(table, schema))
        for name, table, schema in (
            ("images", images, IMAGES), ("described", described, DESCRIBED), ("verdicts", judged, VERDICTS),
        )
    )  # fmt: skip
    of_images, of_described, of_verdicts = files
    role: Any = POOLS[pool]
    return Part(
        number, pool, role, rows.start, len(rows), of_images, described=of_described, verdicts=of_verdicts
    )


@pytest.fixture
def task(tmp_path: Path) -> lineage.LineageTask:
    outcome = np.array([row[1] for row in ROWS], np.int8)
    by = np.full(len(ROWS), -1, np.int64)
    by[[2, 8]] = 0
    score = np.full(len(ROWS), np.nan)
    score[[2, 8]] = 0.75, 0.5
    copies = [
        {"row": 2, "component": 0, "representative": 2, "reason": None, "score": 1.0},
        {"row": 3, "component": 0, "representative": 2, "reason": "near_copy", "score": 0.9},
        {"row": 4, "component": 0, "representative": 2, "reason": "near_copy", "score": 0.8},
    ]
    leaks = [{"row": 4, "holdout": 9, "score": 0.97, "kind": "phash", "by_component": False}]
    placed = [
        {"row": row, "shard": place[0], "position": place[1]}
        for row, (_, _, _, place) in enumerate(ROWS)
        if place is not None
    ]
    places = pa.schema([("row", pa.int64()), ("shard", pa.int32()), ("position", pa.int32())])
    first = [one for one in placed if one["shard"] == 0]
    second = [one | {"shard": min(one["shard"], 0)} for one in placed if one["shard"] != 0]
    return lineage.LineageTask(
        (
            part(tmp_path, 0, "mine", range(2)),
            part(tmp_path, 1, "web", range(2, 9)),
            part(tmp_path, 2, "exam", range(9, 10)),
        ),
        saved(tmp_path / "copies.parquet", pa.Table.from_pylist(copies, COPIES)),
        saved(tmp_path / "leaks.parquet", pa.Table.from_pylist(leaks, LEAKS)),
        saved(tmp_path / "cluster.npy", np.array([row[2] for row in ROWS], np.int32)),
        Outcomes(
            saved(tmp_path / "outcome.npy", outcome),
            saved(tmp_path / "by.npy", by),
            saved(tmp_path / "score.npy", score),
            "outcomes",
        ),
        tuple(
            saved(tmp_path / f"placed-{i}.parquet", pa.Table.from_pylist(rows, places))
            for i, rows in enumerate((first, second))
        ),
    )


def test_the_verdict_that_counts(task: lineage.LineageTask) -> None:
    found = lineage.gather_verdicts(task)
    assert [lineage.VERDICTS[code][1] for code in found.code] == REASONS  # type: ignore[index]
    assert (found.code >= lineage.FIRST_KEPT).tolist() == [True] * 3 + [False] * 7
    assert found.by.tolist() == [-1, -1, 0, 2, 9, -1, -1, -1, 0, -1]
    assert found.component.tolist() == [-1, -1, 0, 0, 0, -1, -1, -1, -1, -1]
    assert found.shard.tolist() == [0, 1, 0, -1, -1, -1, -1, -1, -1, -1]  # the second bucket's is numbered on
    assert found.position.tolist() == [1, 0, 0, -1, -1, -1, -1, -1, -1, -1]


def test_tables_and_counts(task: lineage.LineageTask, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    facts = lineage._load(lineage.LineageSettings("small", tuple(POOLS)))(Attempt(task, None, out))
    tables = [storage.read_table(str(out / lineage.table_file("lineage", i))) for i in range(3)]
    rows = pa.concat_tables(tables).to_pylist()
    assert all(table.schema == LINEAGE for table in tables)
    assert [row["reason"] for row in rows] == REASONS
    assert [row["shard"] for row in rows][:3] == ["small-000000.tar", "small-000001.tar", "small-000000.tar"]
    assert (rows[4]["by_pool"], rows[4]["by_key"], rows[4]["score"]) == ("exam", "9.jpg", 0.97)
    assert (rows[3]["by_key"], rows[3]["score"], rows[5]["by_key"]) == ("2.jpg", 0.9, None)
    assert rows[1]["image_id"] == "01" * 16
    selected = [storage.read_table(str(out / lineage.table_file("selection", i))) for i in range(3)]
    assert [table.num_rows for table in selected] == facts["num_selected"] == [2, 1, 0]
    assert all(table.schema == SELECTION for table in selected)
    assert pa.concat_tables(selected)["origin"].to_pylist() == ["curated", "curated", "retrieved"]
    assert facts["counts"]["web"] == {
        "images": 7, "rejected": 2, "duplicates": 1, "contaminated": 1, "retrieved": 1, "kept": 1,
    }  # fmt: skip
    assert facts["counts"]["dataset"] == 3
    web = [level for level in facts["funnel"] if level["pool"] == "web"]
    assert {reason: n for level in web for reason, n in level["dropped"].items()} == dict.fromkeys(
        REASONS[3:9], 1
    )
    assert all(level["in"] - level["out"] == sum(level["dropped"].values()) for level in web)
    assert (web[0]["in"], web[-1]["out"]) == (7, 1)
    assert facts["examples"]["web"]["dedup.near_copy"] == "3.jpg"
