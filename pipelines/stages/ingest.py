"""ingest: sources become parts of the `images` table."""

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from curation import storage
from curation.ingest.listing import list_parts
from curation.ingest.refresh import merge_listing
from curation.ingest.sources import Source
from curation.schema import IMAGES
from pipelines.config import RunConfig
from pipelines.parts import Part, read
from pipelines.runner import Runner
from pipelines.step import Attempt, Item, Step, Work, digest_of
from pipelines.unique_keys import require_rows


def ingest(runner: Runner, config: RunConfig, *, refresh: bool = False) -> tuple[Part, ...]:
    """List every source of every pool, once; a rerun uses the saved listing, `refresh` merges a new one."""
    settings = config.ingest.model_dump(mode="json")
    load = partial(_load, config.ingest.part_rows, runner.run_dir)
    step = Step("ingest", 1, settings, load, "task", "ingest")
    sources = [(name, pool.role, s) for name, pool in config.pools.items() for s in pool.sources]
    items = [_item(runner, step, source, refresh) for _, _, source in sources]
    receipts = runner.run(step, items)
    parts: list[Part] = []
    for (pool, role, _), receipt in zip(sources, receipts, strict=True):
        for name, num_rows in zip(receipt.facts["parts"], receipt.facts["rows"], strict=True):
            offset = parts[-1].offset + parts[-1].num_rows if parts else 0
            images = receipt.file(runner.run_dir, name)
            parts.append(Part(len(parts), pool, role, offset, num_rows, images))
    require_rows(parts)
    return tuple(parts)


def _item(runner: Runner, step: Step, source: Source, refresh: bool) -> Item:
    plain = source.model_dump(mode="json")
    return runner.newest(step, Item((digest_of(plain),), {"source": plain}), again=lambda _: refresh)


def _load(part_rows: int, run_dir: str) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        source: Source = TypeAdapter(Source).validate_python(attempt.payload["source"])
        unread: list[dict[str, Any]] = []
        notes: list[dict[str, Any]] = []

        def tables() -> Iterator[pa.Table]:
            for part in list_parts(source, part_rows=part_rows):
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
        return {"parts": names, "rows": rows, "num_rows": sum(rows), "unread": unread, "notes": notes}

    return work
