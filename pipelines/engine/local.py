"""The local executor: items one after the other in this process. For debugging, and where there is no Ray."""

import pickle
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from curation import storage
from pipelines.engine.alone import do_alone
from pipelines.engine.row_notes import SCRATCH
from pipelines.engine.runner import Death, Outcomes
from pipelines.engine.step import IN_FLIGHT, AnyItem, AnyStep, Receipt, Work, environment_kept, perform


class LocalExecutor:
    """Does items in this process; takes aside, into a process of its own, what this process once died of."""

    def run(self, step: AnyStep, items: Sequence[AnyItem], run_dir: str) -> Outcomes:
        with environment_kept():
            yield from self._run(step, items, run_dir)

    def _run(self, step: AnyStep, items: Sequence[AnyItem], run_dir: str) -> Outcomes:
        work: Work[Any] | None = None
        for position, item in enumerate(items):
            note = _note(step, item, run_dir)
            if storage.exists(note):
                # An earlier run ended here without a word: it may have died of this item. The note stays till
                # the item is done, since the next item may be as deadly.
                yield position, Death("the process died during an earlier run", blames_item=True)
                continue
            try:  # from before the note: a SIGTERM may come at any time, and is no death
                storage.publish_bytes(note, b"")
                work = work or step.work()
                receipt = perform(work, step, item, run_dir=run_dir)
            finally:
                storage.remove_file(note)
            yield position, receipt

    def run_alone(
        self, step: AnyStep, item: AnyItem, run_dir: str, *, condemned: Mapping[int, str], publish: bool
    ) -> Receipt | Death:
        work = partial(perform, step=step, item=item, run_dir=run_dir, condemned=condemned, publish=publish)
        outcome = do_alone(pickle.dumps((work, step)))
        if publish and isinstance(outcome, Receipt):
            storage.remove_file(_note(step, item, run_dir))
        return outcome


def _note(step: AnyStep, item: AnyItem, run_dir: str) -> str:
    """The file that says that an item is being done in the process of a run."""
    return storage.join(run_dir, SCRATCH, f"{IN_FLIGHT}{step.identity(item)}")
