"""The flow walked without an executor: it finds what is done, stops at what is not, and writes nothing."""

from pathlib import Path
from typing import Any

from pipelines.lvd import curate
from pipelines.plan.dry_run import dry_run
from pipelines.plan.how_far import how_far
from pipelines.stages.ingest.ingest import ingest


def test_of_a_run_that_is_done_all_is_found(finished: Path, configure: Any) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in finished.rglob("*"))
    config = configure(finished)
    dry = dry_run(config, curate)
    assert dry.made is not None
    assert dry.made.parts[0].embeddings is not None
    assert [receipt.step for receipt in dry.runner.receipts["lineage"]] == ["lineage"]
    assert dry.runner.states == how_far(config)
    listed = dry_run(config, ingest)
    assert listed.made is not None
    assert [part.images for part in listed.made] == [part.images for part in dry.made.parts]
    assert set(listed.runner.receipts) == {"ingest_units", "ingest"}
    assert sorted((path, path.stat().st_mtime_ns) for path in finished.rglob("*")) == before


def test_it_stops_at_the_first_step_with_work_to_do(configure: Any, run_quietly: Any, tmp_path: Path) -> None:
    config = configure(tmp_path / "run")
    assert dry_run(config, ingest).made is None
    assert not (tmp_path / "run").exists()
    run_quietly(config, until="judge")
    dry = dry_run(config, curate)
    assert dry.made is None
    last = dry.runner.states[-1]
    assert (last.stage, last.num_done) == ("dedup", 0)
    assert "judge" in dry.runner.receipts
