"""stage: what has no byte ranges is written into plain tars, unit by unit; part of ingest.

A source is first listed as units, once (`ingest_units`): a rerun uses the saved list, and `--refresh` lists
again. Each unit whose bytes must be staged is an item of its own (`ingest_stage`), under an identity that
takes in the version of its file: a file that has not changed is not staged again, and a killed run loses the
units that were in work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Annotated

import pyarrow as pa

from curation import storage
from curation.ingest.problems import Findings, Problem
from curation.ingest.rows import FoundRows
from curation.ingest.sources import Source
from curation.ingest.stage_unit import stage_unit, staged_settings
from curation.ingest.staging import Place
from curation.ingest.units import Unit, cut_units, has_units, is_staged, read_units, units_table
from curation.schema import IMAGES
from pipelines.engine.digest import Unhashed, digest_of
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, Facts, FileRef, Item, Receipt, Step, Work
from pipelines.rows.parts import read
from pipelines.rows.staged import STAGED_STEP, staged_receipt

UNITS_FILE = "units.parquet"  # of ingest_units
ROWS_FILE = "images.parquet"  # of ingest_stage, beside its tars


@dataclass(frozen=True)
class UnitsSettings:
    """Of the listing of units."""

    run_dir: Annotated[str, Unhashed("a source leaves out what the run writes, wherever that is")]


@dataclass(frozen=True)
class UnitsTask:
    """A source to be listed as units."""

    source: Source


@dataclass(frozen=True)
class StageSettings:
    """Of the staging of units."""

    run_dir: Annotated[str, Unhashed("the generation before is read there, and counts by its receipt")]


@dataclass(frozen=True)
class StageTask:
    """A unit to be staged."""

    settings: Mapping[str, object]  # of the source: what of it changes what is staged
    unit: Unit
    source: Annotated[Source, Unhashed("`settings` says what of it changes what is staged")]


@dataclass(frozen=True)
class StagedSource:
    """A source's units in order, and what was staged of them, by position; the others have ranges."""

    units: FileRef
    staged: dict[int, Receipt]
    found: dict[str, list[dict[str, object]]]  # unread and notes, of the listing of the units

    @property
    def digest(self) -> str:
        """Hash of what was listed and staged."""
        receipts = [(position, receipt.digest) for position, receipt in sorted(self.staged.items())]
        return digest_of(self.units.sha256, receipts, self.found)


def stage_sources(runner: Runner, sources: Sequence[Source], *, refresh: bool) -> list[StagedSource | None]:
    """List the units of every source and stage what must be; None for sources that are listed by themselves.

    `refresh` lists again, stages what is new or changed, and asks again where something may now succeed.
    """
    listed = [source if has_units(source) else None for source in sources]
    units = iter(_list_units(runner, [source for source in listed if source], refresh=refresh))
    lists = [next(units) if source else None for source in listed]
    refs = [receipt.file(runner.run_dir, UNITS_FILE) if receipt else None for receipt in lists]
    # One step for all sources, so that the units of all are staged side by side.
    step = Step(STAGED_STEP, 5, StageSettings(runner.run_dir), _load_stage, "ingest")
    places: list[tuple[int, int]] = []
    items: list[Item[StageTask]] = []
    for number, (source, ref) in enumerate(zip(listed, refs, strict=True)):
        for position, unit in enumerate(read_units(read(ref)) if ref else []):
            if source and is_staged(source, unit.file.key):
                places.append((number, position))
                items.append(_item(runner, step, source, unit, refresh=refresh))
    receipts = runner.run(step, items) if items else []
    _keep_earlier(runner, receipts)
    staged: list[dict[int, Receipt]] = [{} for _ in sources]
    for (number, position), receipt in zip(places, receipts, strict=True):
        staged[number][position] = receipt
    return [
        StagedSource(ref, found, {name: receipt.facts[name] for name in ("unread", "notes")})
        if ref and receipt
        else None
        for ref, found, receipt in zip(refs, staged, lists, strict=True)
    ]


def _list_units(runner: Runner, sources: Sequence[Source], *, refresh: bool) -> list[Receipt]:
    step = Step("ingest_units", 3, UnitsSettings(runner.run_dir), _load_units, "ingest")
    items = [runner.newest(step, Item(UnitsTask(source)), again=lambda _: refresh) for source in sources]
    return runner.run(step, items) if items else []


def _load_units(settings: UnitsSettings) -> Work[UnitsTask]:
    def work(attempt: Attempt[UnitsTask]) -> Facts:
        findings = Findings()
        table = units_table(cut_units(attempt.task.source, findings, run_dir=settings.run_dir))
        storage.write_table(attempt.out / UNITS_FILE, table)
        return {
            "num_units": table.num_rows,
            "unread": [asdict(problem) for problem in findings.problems],
            "notes": [asdict(note) for note in findings.notes],
        }

    return work


def _item(
    runner: Runner, step: Step[StageSettings, StageTask], source: Source, unit: Unit, *, refresh: bool
) -> Item[StageTask]:
    item = Item(StageTask(staged_settings(source), unit, source))
    return runner.newest(step, item, again=lambda receipt: refresh and receipt.facts["num_again"] > 0)


def _load_stage(settings: StageSettings) -> Work[StageTask]:
    def work(attempt: Attempt[StageTask]) -> Facts:
        task, last = attempt.task, attempt.before
        before = read(last.file(settings.run_dir, ROWS_FILE)) if last else None
        place = Place(attempt.out, attempt.folder, attempt.tell)
        found = stage_unit(task.source, task.unit, place, before=before)
        storage.write_table(attempt.out / ROWS_FILE, found.table.cast(IMAGES))
        return {
            "num_rows": found.table.num_rows,
            "num_again": found.num_again,
            "earlier": sorted(_folders(found.table) - {attempt.folder}),
            "unread": [asdict(problem) for problem in found.problems],
            "notes": [asdict(note) for note in found.notes],
        }

    return work


def _folders(table: pa.Table) -> set[str]:
    """The folders of the tars that rows lie in, relative to the run directory."""
    paths = set(table["path"].unique().to_pylist())
    return {str(PurePosixPath(path).parent) for path in paths if path and is_relative(path)}


def _keep_earlier(runner: Runner, receipts: Sequence[Receipt]) -> None:
    """What was staged in an earlier generation and is still pointed at is in use: `lvd clean` asks for it."""
    known = {receipt.folder for receipt in receipts}
    for folder in sorted({folder for receipt in receipts for folder in receipt.facts["earlier"]} - known):
        earlier = staged_receipt(runner.run_dir, folder)
        runner.receipts.setdefault(earlier.step, []).append(earlier)


def is_relative(path: str) -> bool:
    """Whether a row's path is relative to the run directory; those of sources are absolute by now."""
    return storage.is_local(path) and not storage.local_path(path).is_absolute()


def read_staged(receipt: Receipt, run_dir: str) -> FoundRows:
    """What a unit gave, its paths made absolute."""
    table = read(receipt.file(run_dir, ROWS_FILE))
    receipts = [receipt, *(staged_receipt(run_dir, folder) for folder in receipt.facts["earlier"])]
    folders = {one.folder: one.files_folder for one in receipts}
    problems = [Problem(**problem) for problem in receipt.facts["unread"]]
    notes = [Problem(**note) for note in receipt.facts["notes"]]
    return FoundRows(_placed(table, run_dir, folders), problems, notes)


def _placed(table: pa.Table, run_dir: str, folders: Mapping[str, str]) -> pa.Table:
    """The rows, their paths absolute; `folders`: those that rows name, and where their files lie."""
    full = {path: _full(path, run_dir, folders) for path in table["path"].unique().to_pylist()}
    paths = pa.array([full[path] for path in table["path"].to_pylist()], pa.string())
    sidecars = [
        [{**sidecar, "path": _full(sidecar["path"], run_dir, folders)} for sidecar in row]
        for row in table["sidecars"].to_pylist()
    ]
    table = table.set_column(IMAGES.get_field_index("path"), IMAGES.field("path"), paths)
    column = pa.array(sidecars, IMAGES.field("sidecars").type)
    return table.set_column(IMAGES.get_field_index("sidecars"), IMAGES.field("sidecars"), column).cast(IMAGES)


def _full(path: str, run_dir: str, folders: Mapping[str, str]) -> str:
    if not is_relative(path):
        return path
    folder, _, name = path.rpartition("/")
    return storage.join(run_dir, folders.get(folder, folder), name)
