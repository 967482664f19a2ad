"""The dataset as it is put together: what its manifest says, and what a file that is damaged does to it."""

import json
from pathlib import Path
from typing import Any

import pytest

from curation import storage
from curation.errors import IntegrityError
from pipelines.config.run_dir import save_config
from pipelines.engine.progress import Progress
from pipelines.engine.runner import Runner
from pipelines.engine.step import Receipt
from pipelines.lvd import curate
from pipelines.stages.shard.dataset import (
    completeness,
    has_report,
    measured_recalls,
    num_edges_dropped,
    publish_dataset,
    report_path,
)


def receipt(step: str, **facts: Any) -> Receipt:
    return Receipt(step, f"of {step}", "", {}, facts)


def runner(**receipts: list[Receipt]) -> Runner:
    return Runner("/run", None, Progress(quiet=True), receipts=receipts)


def test_it_is_the_same_when_it_is_published_again(damageable: Path, configure: Any, digests: Any) -> None:
    config, before = configure(damageable), digests(damageable)
    save_config(str(damageable), config)  # of the copy that it is
    manifest = json.loads((damageable / "manifest.json").read_text())
    dry = Runner(str(damageable), None, Progress(quiet=True))
    made = curate(dry, config, refresh=False)
    shard = next(damageable.glob("dataset-*/*.tar"))
    shard.unlink()
    again = publish_dataset(dry, config, lineage=made.lineage, buckets=made.buckets)
    entries = [entry for entry in again["files"] if not entry["path"].startswith("configs/")]
    assert [entry for entry in manifest["files"] if not entry["path"].startswith("configs/")] == entries
    same = set(manifest) - {"created", "config_sha256", "files", "sealed_by"}
    assert {name: again[name] for name in same} == {name: manifest[name] for name in same}
    assert digests(damageable) == before
    assert has_report(again)
    assert Path(report_path(str(damageable), again)).is_file()
    assert not has_report({**again, "files": []})


def test_a_damaged_file_of_a_step_is_named_before_it_is_linked(damageable: Path, configure: Any) -> None:
    config, before = configure(damageable), (damageable / "manifest.json").read_bytes()
    dry = Runner(str(damageable), None, Progress(quiet=True))
    made = curate(dry, config, refresh=False)
    ref = made.buckets[0].shards[0]
    linked = next(
        path
        for path in damageable.glob("dataset-*/*.tar")
        if path.read_bytes() == Path(ref.path).read_bytes()
    )
    linked.unlink()
    Path(ref.path).write_bytes(b"other bytes")
    with pytest.raises(IntegrityError, match="is damaged") as caught:
        publish_dataset(dry, config, lineage=made.lineage, buckets=made.buckets)
    assert caught.value.path == ref.path
    assert not linked.exists()
    assert (damageable / "manifest.json").read_bytes() == before


def test_what_could_not_be_read_makes_it_incomplete() -> None:
    problem = {"path": "/a.tar", "what": "damaged_tar", "detail": "", "offset": 5}
    listing = receipt("ingest", unread=[problem], notes=[])
    told = runner(ingest=[listing, listing], shard=[receipt("shard", unread=[])])
    levels = [{"pool": "web", "stage": "shard", "dropped": {"source_changed": 2, "over_cap": 9}}]
    found = completeness(told, receipt("lineage", funnel=levels))
    assert found["complete"] is False
    assert [one["what"] for one in found["unread"]] == ["damaged_tar", "source_changed"]  # a listing once
    assert found["unread"][1]["detail"] == "2 images at shard"
    whole = runner(ingest=[receipt("ingest", unread=[], notes=[])], shard=[receipt("shard", unread=[])])
    assert completeness(whole, receipt("lineage", funnel=[])) == {"complete": True, "unread": [], "notes": []}


def test_recalls_and_edges_that_were_let_go_are_those_of_the_receipts() -> None:
    told = runner(
        dedup_edges=[receipt("dedup_edges", num_dropped=3), receipt("dedup_edges")],
        dedup_components=[receipt("dedup_components", num_dropped=4)],
        retrieve=[receipt("retrieve", num_dropped=9, recall={"estimate": 0.5}, pool="mine", num_cells=8)],
    )
    assert num_edges_dropped(told) == 7
    assert num_edges_dropped(told, by_joins=True) == 3
    assert measured_recalls(told) == [{"step": "retrieve", "estimate": 0.5, "pool": "mine", "num_cells": 8}]


def test_files_of_a_dataset_are_those_that_were_hashed(finished: Path) -> None:
    manifest = json.loads((finished / "manifest.json").read_text())
    listed = {entry["path"]: entry["sha256"] for entry in manifest["files"]}
    folder = manifest["dataset_dir"]
    indexes = {f"{folder}/index/{Path(shard['path']).stem}.parquet" for shard in manifest["shards"]}
    config = f"configs/{manifest['config_sha256']}.yaml"
    assert set(listed) == {f"{folder}/index.json", f"{folder}/report.html", config, *indexes}
    for path, sha256 in listed.items():
        assert storage.sha256_file(str(finished / path))[0] == sha256
