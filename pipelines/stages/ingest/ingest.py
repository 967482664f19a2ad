"""ingest: sources become parts of the `images` table."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from curation import storage
from curation.ingest import listing
from curation.ingest.refresh import merge_listing
from curation.ingest.sources import Source, TarSource
from curation.ingest.staging import StagedUnit
from curation.ingest.tar_index import TarIndex, index_tar
from curation.ingest.unique_names import UniqueNames, with_unique_keys
from curation.ingest.units import read_units
from curation.ingest.web.url_source import UrlSource
from curation.schema import IMAGES
from pipelines.config.run_config import RunConfig
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, Item, Receipt, Step, Work, digest_of
from pipelines.rows.parts import Part, read
from pipelines.rows.unique_keys import require_rows
from pipelines.stages.ingest.staging import StagedSource, read_staged, stage_sources


def ingest(runner: Runner, config: RunConfig, *, refresh: bool = False) -> tuple[Part, ...]:
    """List every source of every pool, once; a rerun uses the saved listing, `refresh` merges a new one.

    What has no byte ranges is staged first, and listed from there.
    """
    settings = config.ingest.model_dump(mode="json")
    load = partial(_load, config.ingest.part_rows, runner.run_dir)
    step = Step("ingest", 3, settings, load, "task", "ingest")
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


def _item(runner: Runner, step: Step, source: Source, staged: StagedSource | None, *, refresh: bool) -> Item:
    plain = source.model_dump(mode="json")
    digest = staged and staged.digest
    payload: dict[str, Any] = {
        "source": plain,
        "units": staged and staged.units,
        "staged": staged and staged.staged,
        "digest": digest,
        "found": staged.found if staged else {"unread": [], "notes": []},
    }
    # A listing is made anew as well where what it lists has been staged anew.
    return runner.newest(
        step,
        Item((digest_of(plain),), payload),
        again=lambda _: refresh,
        is_stale=lambda receipt: receipt.facts.get("staged") != digest,
    )


def _list(payload: Mapping[str, Any], *, part_rows: int, run_dir: str) -> Iterator[listing.Part]:
    """The parts of a source, from itself or from what was staged of it."""
    source: Source = TypeAdapter(Source).validate_python(payload["source"])
    if payload["units"] is None:
        return listing.list_parts(source, part_rows=part_rows, run_dir=run_dir)
    staged: Mapping[int, Receipt] = payload["staged"]
    # A column may name rows of several units alike; keys of every other kind differ by themselves.
    names = UniqueNames() if isinstance(source, UrlSource) and source.key is not None else None

    def indexes() -> Iterator[TarIndex | StagedUnit]:
        for position, unit in enumerate(read_units(read(payload["units"]))):
            if position in staged:
                found = read_staged(staged[position], run_dir)
                yield found if names is None else with_unique_keys(found, names, path=unit.file.path)
            else:
                assert isinstance(source, TarSource), "only tars have ranges of their own"
                yield index_tar(unit.file, source)

    return listing.cut_parts(indexes(), part_rows)


def _load(part_rows: int, run_dir: str) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        unread: list[dict[str, Any]] = [*attempt.payload["found"]["unread"]]
        notes: list[dict[str, Any]] = [*attempt.payload["found"]["notes"]]

        def tables() -> Iterator[pa.Table]:
            for part in _list(attempt.payload, part_rows=part_rows, run_dir=run_dir):
                unread.extend(asdict(problem) for problem in part.problems)
                notes.extend(asdict(problem) for problem in part.notes)
                if part.table.num_rows:
                    yield part.table

        listed = tables()
        if before := attempt.payload["before"]:
            old = [read(before.file(run_dir, name)) for name in before.facts["parts"]]
            listed = merge_listing(old, listed, part_rows=part_rows)
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
            "staged": attempt.payload["digest"],
        }

    return work
