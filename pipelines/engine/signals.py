"""SIGTERM, as an error that every frame on its way up can clean up after."""

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
