"""SIGTERM: as an error that every frame on its way up can clean up after, and held while Ray starts."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from curation.errors import StoppedError


class _Sigterm(BaseException):
    """A SIGTERM on its way up: no `except Exception` takes it for an image's fault, or a thread's."""


@contextmanager
def stop_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into a `StoppedError`. What is published stays; what is half done leaves no trace."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signum: int, _frame: FrameType | None) -> None:
        raise _Sigterm

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except _Sigterm:
        remedy = "Run the same command again: it goes on where it was"
        raise StoppedError("Stopped by SIGTERM", remedy=remedy) from None
    finally:
        signal.signal(signal.SIGTERM, before)


_HOLDING = threading.Event()


@contextmanager
def sigterm_held() -> Iterator[None]:
    """Let a SIGTERM wait until the end, and meet the handler that was there at the beginning.

    Ray puts handlers of its own in place as it starts; one of them ends the process with a dump.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noted: list[int] = []  # by a thread that was there before, and blocks nothing
    handler = signal.signal(signal.SIGTERM, lambda number, _frame: noted.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    # A process that is started meanwhile would inherit the mask, and never hear that it is to end.
    os.register_at_fork(after_in_child=_hear_sigterm)
    _HOLDING.set()
    try:
        yield
    except SystemExit:  # Ray's own answer, where such a thread has met its handler
        noted.append(signal.SIGTERM)
        raise
    finally:
        _HOLDING.clear()
        signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if noted:
            signal.raise_signal(signal.SIGTERM)


def _hear_sigterm() -> None:
    if _HOLDING.is_set():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
