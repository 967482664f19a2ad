"""score: what heads make of the vectors that describe has saved. No picture is read again for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from curation import storage
from curation.describe.describe import DescribeConfig
from pipelines.config.run_config import RunConfig
from pipelines.engine.digest import Unhashed
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, Facts, Item, Step, Work
from pipelines.models.identity import heads_identity
from pipelines.rows.parts import FilesOf, Part, read_array

SCORES = "scores.parquet"


@dataclass(frozen=True)
class ScoreSettings:
    """The heads."""

    identity: Mapping[str, object]  # what of them changes the output: the bytes of their weights
    config: Annotated[DescribeConfig, Unhashed("`identity` says what of it changes the output")]


@dataclass(frozen=True)
class ScoreTask:
    """The vectors of a part that heads look at."""

    part: Annotated[Part, FilesOf("seen_by_heads")]


def score_parts(runner: Runner, config: RunConfig, parts: Sequence[Part]) -> tuple[Part, ...]:
    """Score every image with every head that is on; the parts as they are where none is."""
    settings = config.describe
    if not settings.heads.on:
        return tuple(parts)
    step = Step("score", 2, ScoreSettings(heads_identity(settings), settings), _load, "describe")
    receipts = runner.run(step, [Item(ScoreTask(part), part.num_rows) for part in parts])
    return tuple(
        replace(part, scores=receipt.file(runner.run_dir, SCORES))
        for part, receipt in zip(parts, receipts, strict=True)
    )


def _load(settings: ScoreSettings) -> Work[ScoreTask]:
    from curation.describe.heads import score  # torch: seconds, which no dry run waits for
    from pipelines.models.heads import load_heads

    heads = load_heads(settings.config)

    def work(attempt: Attempt[ScoreTask]) -> Facts:
        table = score(read_array(attempt.task.part.seen_by_heads), heads)
        storage.write_table(attempt.out / SCORES, table)
        return {"num_rows": table.num_rows}

    return work
