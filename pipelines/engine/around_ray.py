"""What is kept from Ray, which runs in this very process: the terminal, and SIGTERM while it starts."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

from curation import storage
from pipelines.engine.progress import Progress
from pipelines.engine.streams import Stream


@contextmanager
def terminal_kept(progress: Progress, folder: str) -> Iterator[None]:
    """Let what is written to descriptors 1 and 2 inside go to a file of `folder`; our own words reach people.

    Ray's libraries write there past Python, as they start and as they end; on stdout, results would follow.
    """
    _flush()
    before, terminal, results = progress.console.file, os.dup(2), os.dup(1)
    try:
        with os.fdopen(os.dup(terminal), "w", buffering=1, errors="backslashreplace") as file:
            if _writes_to(before, 2):
                progress.console.file = cast(IO[str], Stream(file, file.fileno()))
            log = _open_log(progress, folder)
            for number in (1, 2):
                os.dup2(log, number)
            os.close(log)
            yield
    finally:
        _flush()
        for number, kept in ((1, results), (2, terminal)):
            os.dup2(kept, number)
            os.close(kept)
        progress.console.file = before


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _open_log(progress: Progress, folder: str) -> int:
    path = storage.local_path(storage.join(folder, time.strftime("ray-%Y%m%dT%H%M%SZ.log", time.gmtime())))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:  # it is for people, and no reason to end a run
        progress.say(f"{path} cannot be written ({error.strerror}); the run goes on without it")
        return os.open(os.devnull, os.O_WRONLY)


def _writes_to(file: object, number: int) -> bool:
    try:
        return file.fileno() == number  # type: ignore[attr-defined]
    except (OSError, ValueError, AttributeError):  # no file of the operating system
        return False


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
