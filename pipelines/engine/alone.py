"""One item in a fresh process of its own, whose end tells what became of it. Both executors ask here."""

import faulthandler
import multiprocessing
import pickle
import signal
import traceback
from multiprocessing.connection import Connection
from typing import Any

from curation.errors import ExecutorError, LvdError
from curation.orphans import end_with_parent
from pipelines.engine.runner import Death
from pipelines.engine.step import Receipt


def do_alone(packed: bytes) -> Receipt | Death:
    """Do the work of one item in a process that is started for it.

    Args:
        packed: a pickle of `perform` with all arguments but the work, and of the step.

    Raises:
        LvdError: as the work says; an ExecutorError when it fails otherwise.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_alone, args=(theirs, packed))
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
        return answer
    # SIGKILL is what the kernel ends a process with when memory runs out: not the item's fault.
    blames_item = process.exitcode != -signal.SIGKILL
    return Death(f"exit code {process.exitcode}", blames_item=blames_item)


def _alone(pipe: Connection, packed: bytes) -> None:
    faulthandler.disable()  # a crash is expected here; its dump would only frighten
    end_with_parent()
    answer: Any
    try:
        perform_it, step = pickle.loads(packed)
        answer = perform_it(step.work())
    except LvdError as error:
        answer = error
    except Exception:  # our own fault, and not the item's: the parent raises it
        answer = ExecutorError("A process of its own failed for an item", got=traceback.format_exc())
    pipe.send(answer)
