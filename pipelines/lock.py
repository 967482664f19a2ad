"""One run at a time on a run directory."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from curation import storage
from curation.errors import LockedError

# `owner` holds the lock for an instant to see whether it is free: that is no run.
TRIES = 5
WAIT_S = 0.05


@contextmanager
def lock(run_dir: str) -> Iterator[None]:
    """Own `run_dir` inside the `with`.

    The kernel gives the lock back when its owner dies, so there is no stale lock to remove.

    Raises:
        LockedError: naming the owner, when another run has it.
    """
    path = storage.local_path(run_dir) / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        for tries_left in reversed(range(TRIES)):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if not tries_left:
                    raise LockedError(
                        f"Another run owns {run_dir}",
                        got=owner(run_dir) or "an owner that left no name",
                        remedy="Wait until it ends, or end it; what it has done so far is kept",
                    ) from error
                time.sleep(WAIT_S)
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}))
        file.flush()
        yield
        file.truncate(0)


def owner(run_dir: str) -> str | None:
    """Who owns the run directory now, or None."""
    path = storage.local_path(run_dir) / "lock"
    if not path.exists():
        return None
    with path.open("r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = file.read()
        else:
            return None
    try:
        data = json.loads(text)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(data["since"]))
        return f"process {data['pid']} on {data['host']}, since {since}"
    except (ValueError, KeyError, TypeError):
        return "a run that has just begun"
