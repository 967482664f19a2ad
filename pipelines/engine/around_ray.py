"""Around Ray, which runs in this very process: its environment, and the terminal, which is kept from it."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from curation import storage
from pipelines.engine.progress import Progress
from pipelines.engine.streams import Stream


def prepare_ray_environment() -> None:
    """Set what Ray reads from the environment while it is imported, where it is not set already."""
    # Without a token anyone who reaches the node's ports can run code on it (CVE-2023-48022).
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    # Ray's own default for the future; without it every start warns.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # The default of 15 s is too little for a machine that is busy with something else.
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")
    # Otherwise Ray prints an error line for every restartable actor, of which none is one.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    # Otherwise a SIGTERM while Ray starts waits half a minute for a node that has nothing to finish.
    os.environ.setdefault("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "0")


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
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:  # it is for people, and no reason to end a run
        progress.say(f"{path} cannot be written ({error.strerror}); the run goes on without it")
        return os.open(os.devnull, os.O_WRONLY)


def _writes_to(file: Any, number: int) -> bool:
    try:
        return bool(file.fileno() == number)
    except (OSError, ValueError, AttributeError):  # no file of the operating system
        return False
