"""judge: thresholds are applied to what was measured; a changed one costs seconds and no embedding."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from curation import storage
from curation.describe.filters import JudgeConfig, judge
from pipelines.config.run_config import RunConfig
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, Facts, Item, Step, Work
from pipelines.rows.parts import FilesOf, Part, read

VERDICTS = "verdicts.parquet"


@dataclass(frozen=True)
class JudgeSettings:
    """The thresholds."""

    config: JudgeConfig


@dataclass(frozen=True)
class JudgeTask:
    """What was measured of a part, and what heads made of it."""

    part: Annotated[Part, FilesOf("described", "scores")]


def judge_parts(runner: Runner, config: RunConfig, parts: Sequence[Part]) -> tuple[Part, ...]:
    """Apply the thresholds to what was measured."""
    step = Step("judge", 3, JudgeSettings(config.judge), _load, "judge")
    receipts = runner.run(step, [Item(JudgeTask(part), part.num_rows) for part in parts])
    return tuple(
        replace(part, verdicts=receipt.file(runner.run_dir, VERDICTS))
        for part, receipt in zip(parts, receipts, strict=True)
    )


def _load(settings: JudgeSettings) -> Work[JudgeTask]:
    def work(attempt: Attempt[JudgeTask]) -> Facts:
        part = attempt.task.part
        described = read(part.described)
        scores = None if part.scores is None else read(part.scores)
        storage.write_table(attempt.out / VERDICTS, judge(described, settings.config, scores=scores))
        return {"num_rows": described.num_rows}

    return work
