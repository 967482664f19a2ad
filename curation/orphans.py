"""A process that ends with the one that started it, however that ended: of a SIGKILL nobody is told."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable

LOOK_EVERY_S = 0.5
# In the environment: the number of the process that is to be watched, for those that another program starts.
PARENT = "LVD_PARENT"


def named_parent() -> int | None:
    """The parent that the environment names, if it does."""
    return int(os.environ[PARENT]) if PARENT in os.environ else None


def end_with_parent(*, by: signal.Signals = signal.SIGKILL, parent: int | None = None) -> None:
    """Send this process a signal when the one that started it has ended.

    A thread looks; a death signal of the kernel (`PR_SET_PDEATHSIG`) would be for the *thread* that started
    us, and says nothing to a process that a fork server has started for another.

    Args:
        by: SIGKILL ends it at once, SIGTERM lets it save what it has.
        parent: the process that started this one, where that is known: it may have ended before we look. None
            for whoever that is now, or that asked for this process of `multiprocessing`.
    """
    threading.Thread(target=_watch, args=(_liveness_of(parent), by), daemon=True).start()


def _liveness_of(parent: int | None) -> Callable[[], bool]:
    if parent is None and (asked := multiprocessing.parent_process()) is not None:
        return asked.is_alive
    number = os.getppid() if parent is None else parent
    return lambda: os.getppid() == number


def _watch(is_alive: Callable[[], bool], by: signal.Signals) -> None:
    while is_alive():
        time.sleep(LOOK_EVERY_S)
    os.kill(os.getpid(), by)
