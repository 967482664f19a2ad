"""The local executor: items one after the other in this process. For debugging, and where there is no Ray."""

import faulthandler
import multiprocessing
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from curation import storage
from curation.errors import ExecutorError, LvdError
from curation.orphans import end_with_parent
from pipelines.runner import Death
from pipelines.step import IN_FLIGHT, Item, Receipt, Step, Work, perform
from pipelines.threads import set_threads


class LocalExecutor:
    """Does items in this process; takes aside, into a process of its own, what this process once died of."""

    def run(self, step: Step, items: Sequence[Item], run_dir: str) -> Iterator[tuple[int, Receipt | Death]]:
        work: Work | None = None
        set_threads(step.threads)
        for position, item in enumerate(items):
            note = _note(step, item, run_dir)
            if storage.exists(note):
                # An earlier run ended here without a word: it may have died of this item. The note stays till
                # the item is done, since the next item may be as deadly.
                yield position, Death("the process died during an earlier run", blames_item=True)
                continue
            try:  # from before the note: a SIGTERM may come at any time, and is no death
                storage.publish_bytes(note, b"")
                work = work or step.load()
                receipt = perform(work, step, item, run_dir=run_dir)
            finally:
                storage.remove_file(note)
            yield position, receipt

    def run_alone(
        self, step: Step, item: Item, run_dir: str, *, condemned: Mapping[int, str], publish: bool
    ) -> Receipt | Death:
        perform_it = partial(
            perform, step=step, item=item, run_dir=run_dir, condemned=dict(condemned), publish=publish
        )
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_alone, args=(theirs, perform_it, step))
        process.start()
        theirs.close()
        try:
            answer = ours.recv()
        except EOFError:
            answer = None
        except BaseException:  # Ctrl-C or SIGTERM: nobody waits for the answer any more
            process.kill()
            raise
        finally:
            process.join()
            ours.close()
        if isinstance(answer, LvdError):
            raise answer
        if isinstance(answer, Receipt):
            if publish:
                storage.remove_file(_note(step, item, run_dir))
            return answer
        # 9 is what the kernel ends a process with when memory runs out: not the item's fault.
        return Death(f"exit code {process.exitcode}", blames_item=process.exitcode != -9)


def _note(step: Step, item: Item, run_dir: str) -> str:
    """The file that says that an item is being done in the process of a run."""
    return storage.join(run_dir, "tmp", f"{IN_FLIGHT}{step.identity(item)}")


def _alone(pipe: Connection, perform_it: Callable[[Work], Receipt], step: Step) -> None:
    faulthandler.disable()  # a crash is expected here; its dump would only frighten
    end_with_parent()
    set_threads(step.threads)
    answer: Any
    try:
        answer = perform_it(step.load())
    except LvdError as error:
        answer = error
    except Exception:  # our own fault, and not the item's: the parent raises it
        answer = ExecutorError(f"Step {step.name} failed in a process of its own", got=traceback.format_exc())
    pipe.send(answer)
