"""An executor without processes, which kills and interrupts where a test wants it to."""

from collections.abc import Mapping, Sequence

from pipelines.engine.runner import Death, Outcomes
from pipelines.engine.step import AnyItem, AnyStep, Receipt, perform


class Interrupted(BaseException):
    """Stands for Ctrl-C or a kill."""


class FakeExecutor:
    """Does items here.

    Args:
        killers: rows that kill who works on them.
        stop_at: the event before which all breaks off; every item is one.
    """

    def __init__(self, *, killers: Sequence[int] = (), stop_at: int | None = None) -> None:
        self.killers = set(killers)
        self.stop_at = stop_at
        self.num_events = 0
        self.num_alone = 0
        self.done: list[str] = []  # the step of every item

    def event(self) -> None:
        """What a run can be interrupted before."""
        if self.num_events == self.stop_at:
            raise Interrupted
        self.num_events += 1

    def run(self, step: AnyStep, items: Sequence[AnyItem], run_dir: str) -> Outcomes:
        for position in reversed(range(len(items))):  # any order is allowed
            self.event()
            outcome = self.attempt(step, items[position], run_dir, condemned={}, publish=True)
            self.done.append(step.name)
            yield position, outcome

    def run_alone(
        self, step: AnyStep, item: AnyItem, run_dir: str, *, condemned: Mapping[int, str], publish: bool
    ) -> Receipt | Death:
        self.num_alone += 1
        return self.attempt(step, item, run_dir, condemned=condemned, publish=publish)

    def attempt(
        self, step: AnyStep, item: AnyItem, run_dir: str, *, condemned: Mapping[int, str], publish: bool
    ) -> Receipt | Death:
        rows = range(item.num_rows)
        if any(row in self.killers and row not in condemned for row in rows):
            return Death("SIGSEGV", blames_item=True)
        return perform(step.work(), step, item, run_dir=run_dir, condemned=condemned, publish=publish)
