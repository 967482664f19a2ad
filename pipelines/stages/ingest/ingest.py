"""ingest: sources become parts of the `images` table."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated

import pyarrow as pa

from curation import storage
from curation.ingest import listing
from curation.ingest.refresh import merge_listing
from curation.ingest.rows import FoundRows
from curation.ingest.sources import Source, TarSource, UrlSource
from curation.ingest.tars.tar_index import index_tar
from curation.ingest.unique_names import UniqueNames, with_unique_keys
from curation.ingest.units import read_units
from curation.schema import IMAGES
from pipelines.config.run_config import IngestConfig, RunConfig
from pipelines.engine.digest import Unhashed
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, Facts, Item, Step, Work
from pipelines.rows.parts import Part, read
from pipelines.rows.unique_keys import require_rows
from pipelines.stages.ingest.staging import StagedSource, read_staged, stage_sources


@dataclass(frozen=True)
class IngestSettings:
    """How listings are cut into parts."""

    config: IngestConfig
    run_dir: Annotated[str, Unhashed("a source leaves out what the run writes, wherever that is")]


@dataclass(frozen=True)
class IngestTask:
    """A source, and what was staged of it where it has no byte ranges."""

    source: Source
    staged: Annotated[
        StagedSource | None, Unhashed("what is staged anew is listed anew: a generation of its own")
    ]


def ingest(runner: Runner, config: RunConfig, *, refresh: bool = False) -> tuple[Part, ...]:
    """List every source of every pool, once; a rerun uses the saved listing, `refresh` merges a new one.

    What has no byte ranges is staged first, and listed from there.
    """
    step = Step("ingest", 3, IngestSettings(config.ingest, runner.run_dir), _load, "ingest")
    sources = [(name, pool.role, s) for name, pool in config.pools.items() for s in pool.sources]
    staged = stage_sources(runner, [source for _, _, source in sources], refresh=refresh)
    items = [
        _item(runner, step, source, found, refresh=refresh)
        for (_, _, source), found in zip(sources, staged, strict=True)
    ]
    receipts = runner.run(step, items)
    parts: list[Part] = []
    for (pool, role, _), receipt in zip(sources, receipts, strict=True):
        for name, num_rows in zip(receipt.facts["parts"], receipt.facts["rows"], strict=True):
            offset = parts[-1].offset + parts[-1].num_rows if parts else 0
            images = receipt.file(runner.run_dir, name)
            parts.append(Part(len(parts), pool, role, offset, num_rows, images))
    unread, notes = ([entry for r in receipts for entry in r.facts[name]] for name in ("unread", "notes"))
    require_rows(parts, unread, notes)
    return tuple(parts)


def _item(
    runner: Runner,
    step: Step[IngestSettings, IngestTask],
    source: Source,
    staged: StagedSource | None,
    *,
    refresh: bool,
) -> Item[IngestTask]:
    digest = staged.digest if staged else None
    # A listing is made anew as well where what it lists has been staged anew.
    return runner.newest(
        step,
        Item(IngestTask(source, staged)),
        again=lambda _: refresh,
        is_stale=lambda receipt: receipt.facts.get("staged") != digest,
    )


def _list(task: IngestTask, settings: IngestSettings) -> Iterator[FoundRows]:
    """The parts of a source, from itself or from what was staged of it."""
    source, staged = task.source, task.staged
    part_rows, run_dir = settings.config.part_rows, settings.run_dir
    if staged is None:
        return listing.list_parts(source, part_rows=part_rows, run_dir=run_dir)
    # A column may name rows of several units alike; keys of every other kind differ by themselves.
    names = UniqueNames() if isinstance(source, UrlSource) and source.key is not None else None

    def indexes() -> Iterator[FoundRows]:
        for position, unit in enumerate(read_units(read(staged.units))):
            if position in staged.staged:
                found = read_staged(staged.staged[position], run_dir)
                yield found if names is None else with_unique_keys(found, names, path=unit.file.path)
            else:
                assert isinstance(source, TarSource), "only tars have ranges of their own"
                yield index_tar(unit.file, source)

    return listing.cut_parts(indexes(), part_rows)


def _load(settings: IngestSettings) -> Work[IngestTask]:
    def work(attempt: Attempt[IngestTask]) -> Facts:
        staged = attempt.task.staged
        unread: list[dict[str, object]] = [*staged.found["unread"]] if staged else []
        notes: list[dict[str, object]] = [*staged.found["notes"]] if staged else []

        def tables() -> Iterator[pa.Table]:
            for part in _list(attempt.task, settings):
                unread.extend(asdict(problem) for problem in part.problems)
                notes.extend(asdict(problem) for problem in part.notes)
                if part.table.num_rows:
                    yield part.table

        listed = tables()
        if before := attempt.before:
            old = [read(before.file(settings.run_dir, name)) for name in before.facts["parts"]]
            listed = merge_listing(old, listed, part_rows=settings.config.part_rows)
        names, rows = [], []
        for i, table in enumerate(listed):
            names.append(f"part-{i:06d}.parquet")
            rows.append(table.num_rows)
            # Read back, a listing names its lists' items otherwise: the cast makes equal rows equal bytes.
            storage.write_table(attempt.out / names[-1], table.cast(IMAGES))
        return {
            "parts": names,
            "rows": rows,
            "num_rows": sum(rows),
            "unread": unread,
            # What is so in all files of a source is noted once.
            "notes": list({tuple(note.items()): note for note in notes}.values()),
            "staged": staged.digest if staged else None,
        }

    return work
