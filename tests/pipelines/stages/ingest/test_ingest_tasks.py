"""What the identities of ingest's steps hang on, and what not."""

from typing import Any

from curation import storage
from curation.ingest.sources import FolderSource, ParquetSource
from curation.ingest.stage_unit import staged_settings
from curation.ingest.units import Unit
from pipelines.config.run_config import IngestConfig
from pipelines.engine.step import FileRef, Item, Receipt, Step
from pipelines.stages.ingest import ingest, staging


def listed(
    source: Any, staged: staging.StagedSource | None = None, *, run_dir: str = "/run", **more: int
) -> str:
    settings = ingest.IngestSettings(IngestConfig(**more), run_dir)
    step = Step("ingest", 3, settings, ingest._load, "ingest")
    return step.identity(Item(ingest.IngestTask(source, staged)))


def unit_of(source: ParquetSource, version: str = "1") -> str:
    unit = Unit(storage.FileInfo("/in/a.parquet", "a.parquet", 9, version))
    step = Step("ingest_stage", 5, staging.StageSettings("/run"), staging._load_stage, "ingest")
    return step.identity(Item(staging.StageTask(staged_settings(source), unit, source)))


def test_a_listing_hangs_on_its_source_and_not_on_the_run() -> None:
    source = FolderSource(path="/in")
    assert listed(source, run_dir="/elsewhere") == listed(source)
    assert listed(FolderSource(path="/other")) != listed(source)
    assert listed(source, part_rows=7) != listed(source)


def test_what_is_staged_anew_is_a_generation_of_the_same_listing() -> None:
    source = ParquetSource(path="/in")
    receipt = Receipt("ingest_stage", "id", "steps/ingest_stage/id", {}, {})
    found: dict[str, list[dict[str, Any]]] = {"unread": [], "notes": []}
    staged = staging.StagedSource(FileRef("/run/units.parquet", 1, "a"), {0: receipt}, found)
    other = staging.StagedSource(FileRef("/run/units.parquet", 1, "b"), {}, found)
    assert staged.digest != other.digest
    assert listed(source, staged) == listed(source, other) == listed(source)


def test_a_unit_is_staged_once_however_its_source_is_named() -> None:
    source = ParquetSource(path="/in/*.parquet")
    assert unit_of(ParquetSource(path="/in")) == unit_of(source)
    assert unit_of(ParquetSource(path="/in", image="picture")) != unit_of(source)
    assert unit_of(source, version="2") != unit_of(source)
