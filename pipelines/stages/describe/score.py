"""score: what heads make of the vectors that describe has saved. No picture is read again for it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from curation import storage
from curation.describe.describe import DescribeConfig
from pipelines.config.run_config import RunConfig
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, FileRef, Item, Step, Work
from pipelines.rows.parts import Part, read_array


def score_parts(runner: Runner, config: RunConfig, parts: Sequence[Part]) -> tuple[Part, ...]:
    """Score every image with every head that is on; the parts as they are where none is."""
    settings = config.describe
    if not settings.heads.on:
        return tuple(parts)
    from pipelines.models.heads import (
        heads_identity,  # torch takes seconds to import, which only heads shall cost
    )

    step = Step("score", 2, heads_identity(settings), partial(_load, settings), "map", "describe")
    items = [Item((_vectors(part).sha256,), {"part": part}, part.num_rows) for part in parts]
    receipts = runner.run(step, items)
    return tuple(
        replace(part, scores=receipt.file(runner.run_dir, "scores.parquet"))
        for part, receipt in zip(parts, receipts, strict=True)
    )


def _vectors(part: Part) -> FileRef:
    found = part.head_vectors or part.embeddings
    assert found is not None, "a step was built before the file that it reads"
    return found


def _load(config: DescribeConfig) -> Work:
    from curation.describe.heads import score
    from pipelines.models.heads import load_heads

    heads = load_heads(config)

    def work(attempt: Attempt) -> dict[str, Any]:
        part: Part = attempt.payload["part"]
        table = score(read_array(_vectors(part)), heads)
        storage.write_table(attempt.out / "scores.parquet", table)
        return {"num_rows": table.num_rows}

    return work
