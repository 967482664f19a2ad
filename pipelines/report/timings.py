"""Timings: what every step cost, from the receipts of its items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.engine.step import Receipt


@dataclass(frozen=True)
class StepTiming:
    """What one step cost. Receipts of an earlier run of the same work count as they stand."""

    step: str
    num_items: int
    num_rows: int  # images, 0 where the step's receipts do not count them
    num_bytes: int
    work_s: float  # of all workers together
    publish_s: float

    @property
    def rows_per_s(self) -> float | None:
        """Images for every second of one worker's work."""
        return self.num_rows / self.work_s if self.num_rows and self.work_s > 0 else None


def gather_timings(receipts: Mapping[str, Sequence[Receipt]]) -> list[StepTiming]:
    """One row a step, in the order of the flow."""
    return [_timing(name, of_step) for name, of_step in receipts.items()]


def _timing(step: str, receipts: Sequence[Receipt]) -> StepTiming:
    return StepTiming(
        step,
        len(receipts),
        sum(int(receipt.facts.get("num_rows", 0)) for receipt in receipts),
        sum(num_bytes for receipt in receipts for num_bytes, _ in receipt.files.values()),
        sum(receipt.timings.get("work_s", 0.0) for receipt in receipts),
        sum(receipt.timings.get("publish_s", 0.0) for receipt in receipts),
    )
