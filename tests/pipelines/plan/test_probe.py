"""Measuring on a sample: every step gets a rate, and the run directory nothing."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation.errors import ConfigError
from pipelines.config.paths import absolute
from pipelines.config.run_config import validate
from pipelines.engine.progress import Progress
from pipelines.plan.answer import PlanQuestion, make_plan
from pipelines.plan.probe import probe
from pipelines.plan.work import forecast


@pytest.mark.accept
def test_a_sample_gives_every_rate(configure: Callable[..., Any], tmp_path: Path) -> None:
    config = absolute(configure(tmp_path / "run"))
    found = probe(config, num_images=96)
    assert not (tmp_path / "run").exists()
    works = forecast(found.sizes)
    unknown = {work.name for work in works if work.key not in found.rates}
    assert unknown <= {"ingest_units"}
    for name, rate in found.rates.items():
        assert rate.unit.wall_s > 0, name
    assert found.counted
    assert found.sizes.shares.embedding_dim == 664
    assert 0 < found.sizes.shares.alive_pool <= 1
    assert found.sizes.total > 200


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few drawn vectors: what they take is not looked at."""
    few = {"JOIN_ROWS": 256, "QUERY_ROWS": 64, "KMEANS_ROWS": 256, "KMEANS_CLUSTERS": 8, "PIXEL_ROWS": 8}
    for name, number in few.items():
        monkeypatch.setattr(f"pipelines.plan.drawn_rates.{name}", number)


def write_images(root: Path) -> None:
    """Twenty pictures as a parquet file and as a compressed tar."""
    root.mkdir()
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(20):
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(out, "PNG")
        pictures.append(out.getvalue())
    pq.write_table(pa.table({"image": pictures}), root / "images.parquet")
    with tarfile.open(root / "images.tar.gz", "w:gz") as tar:
        for number, data in enumerate(pictures):
            member = tarfile.TarInfo(f"{number:03d}.png")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize(("kind", "suffix"), [("parquet", "parquet"), ("tars", "tar.gz")])
@pytest.mark.usefixtures("quick")
def test_what_is_staged_is_sampled(kind: str, suffix: str, tmp_path: Path, run_quietly: Any) -> None:
    """A source without ranges says so, and once it has been ingested the plan is whole."""
    write_images(tmp_path / "in")
    config = validate(
        {
            "run_dir": str(tmp_path / "run"),
            "pools": {
                "web": {
                    "role": "uncurated",
                    "sources": [{"kind": kind, "path": str(tmp_path / "in" / f"images.{suffix}")}],
                }
            },
            "describe": {"embed": {"embedder": "gist"}, "decode_threads": 1},
            "executor": {"kind": "local"},
        },
        where="a test",
    )
    with pytest.raises(ConfigError, match=r"before it is staged[\s\S]*--until ingest"):
        make_plan(config, PlanQuestion())
    run_quietly(config, until="ingest")
    plan = make_plan(config, PlanQuestion())
    assert plan.sizes is not None
    assert plan.sizes.images == {"web": 20}
    steps = {step.work.name: step for step in plan.steps}
    assert steps["ingest_stage"].wall_s == 0
    assert steps["ingest_stage"].rate is not None
    assert steps["describe"].wall_s
    run_quietly(config, until="describe")
    describe = {step.work.name: step for step in make_plan(config, PlanQuestion()).steps}["describe"]
    assert describe.rate is not None
    assert describe.rate.source.startswith("this run's receipts")
    # Receipts tell nothing of the memory of libraries and models.
    assert describe.worker_bytes > describe.work.held_bytes + 5e7


@pytest.mark.usefixtures("quick")
def test_a_plan_shows_what_it_measures(
    configure: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress()
    probe(configure(tmp_path / "run"), num_images=24, progress=progress)
    said = [line.split(" ")[0] for line in capsys.readouterr().err.splitlines()]
    in_order = ["listing", "describe:", "judge:", "lineage:", "measuring"]
    assert [word for word in said if word in in_order] == in_order
    assert (said[0], said[-1]) == ("listing", "measuring")
    probe(configure(tmp_path / "run"), num_images=24)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("quick")
def test_joins_too_small_to_tell_are_measured_for_another_size(
    configure: Callable[..., Any], finished: Path
) -> None:
    asked = PlanQuestion(images={"": 10**9}, like=str(finished))
    steps = {step.work.name: step for step in make_plan(configure(finished), asked).steps}
    for name in ("dedup_edges", "dedup_pixel_edges"):
        rate = steps[name].rate
        assert rate is not None
        assert rate.source.endswith("drawn by lot")
        assert steps[name].written_bytes < 5e12
    assert sum(step.written_bytes or 0 for step in steps.values()) < 50e12
