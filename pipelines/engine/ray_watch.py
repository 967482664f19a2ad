"""Whether a Ray cluster is still there, seen from outside, and the end of what is left of one.

Ray itself does not tell: a driver whose node is gone waits for ever, or is ended by Ray without a word.
"""

import atexit
import contextlib
import os
import queue
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from curation.errors import ExecutorError
from pipelines.engine.last_words import is_lost, knowingly

LOOK_EVERY_S = 1.0
ANSWER_S = 5.0
# A head that somebody else runs may be started anew; Ray ends this process when it has been gone for 60 s.
HEAD_GONE_S = 30.0
TAKEN_S = 5.0  # until who waits for Ray has told what happened
END_S = 10.0
# In the environment of all processes of a cluster of our own.
MARK = "LVD_RAY"

T = TypeVar("T")


@dataclass(frozen=True)
class RayCluster:
    """Where a cluster is to be seen.

    Args:
        head: host and port of the head; None where a client cannot reach it.
        node: socket of this machine's node; None for a client.
        mark: of the processes, where the cluster is our own.
    """

    head: tuple[str, int] | None
    node: str | None
    mark: str | None = None


class Watch:
    """Looks after a cluster from a thread of its own.

    Args:
        say: tells people the last words of this process, where nobody waits for Ray who could raise an error.

    Attributes:
        lost: why the cluster is lost, once it is.
    """

    def __init__(self, cluster: RayCluster, say: Callable[[str], None]) -> None:
        self.cluster = cluster
        self.lost: str | None = None
        self._say = say
        self._closed = threading.Event()
        self._answered = time.monotonic()
        threading.Thread(target=self._look_after, name="ray-watch", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def look(self) -> str | None:
        """Why the cluster is lost; None while it is there."""
        head, node = self.cluster.head, self.cluster.node
        if node is not None and not _accepts(socket.AF_UNIX, node):
            return "its node on this machine has ended (raylet)"
        if head is None or _accepts(socket.AF_INET6 if ":" in head[0] else socket.AF_INET, head):
            self._answered = time.monotonic()
        elif self.cluster.mark is not None or time.monotonic() - self._answered > HEAD_GONE_S:
            return "its head does not answer"
        return None

    def drawn(self, outcomes: Iterator[T]) -> Iterator[T]:
        """`outcomes`, drawn by a thread of their own, which may wait for ever.

        Raises:
            ExecutorError: when the cluster is lost.
        """
        found: queue.SimpleQueue[tuple[Any, BaseException | None, bool]] = queue.SimpleQueue()
        threading.Thread(target=_draw, args=(outcomes, found), daemon=True).start()
        while True:
            try:
                outcome, error, is_end = found.get(timeout=LOOK_EVERY_S)
            except queue.Empty:
                self.raise_if_lost()
                continue
            if error is not None:
                self.raise_if_lost()
                raise error
            if is_end:
                return
            yield outcome

    def raise_if_lost(self) -> None:
        """Raise an ExecutorError when the cluster is lost, and end what is left of one of our own."""
        self.lost = self.lost or self.look()
        if self.lost is not None:
            self.close()
            end_marked(self.cluster.mark)
            raise is_lost(self.lost)

    def _look_after(self) -> None:
        while self.lost is None:
            if self._closed.wait(LOOK_EVERY_S):
                return
            self.lost = self.look()
        if not self._closed.wait(TAKEN_S):  # at work on something else; soon Ray would end it without a word
            end_marked(self.cluster.mark)
            self._say(f"lvd: {is_lost(self.lost)}")
            knowingly()
            os._exit(ExecutorError.exit_code)


def _draw(outcomes: Iterator[T], found: "queue.SimpleQueue[tuple[Any, BaseException | None, bool]]") -> None:
    try:
        for outcome in outcomes:
            found.put((outcome, None, False))
        found.put((None, None, True))
    except BaseException as error:  # raised where the outcomes are wanted
        found.put((None, error, False))


def _accepts(family: socket.AddressFamily, address: str | tuple[str, int]) -> bool:
    """Whether somebody listens; one who is too busy to answer does."""
    with socket.socket(family) as probe:
        probe.settimeout(ANSWER_S)
        try:
            probe.connect(address)
        except (TimeoutError, BlockingIOError):
            return family == socket.AF_UNIX
        except OSError:
            return False
    return True


def leave_at_exit() -> None:
    """Let this process end without Ray, whose farewell to a lost cluster hangs or crashes."""
    atexit.register(_leave)


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    knowingly()
    os._exit(ExecutorError.exit_code)


@contextlib.contextmanager
def marking() -> Iterator[str]:
    """A mark that all processes have in their environment which are started inside."""
    mark = os.environ[MARK] = uuid.uuid4().hex
    try:
        yield mark
    finally:
        del os.environ[MARK]


def end_marked(mark: str | None, *, wait_s: float = 0.0) -> None:
    """End the processes of a cluster of our own that have not ended by themselves after `wait_s`."""
    if mark is None:
        return
    end = time.monotonic() + wait_s
    while (left := _marked(mark)) and time.monotonic() < end:
        time.sleep(0.1)
    while left and time.monotonic() < end + END_S:
        for number in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.1)
        left = _marked(mark)


def _marked(mark: str) -> list[int]:
    wanted = f"{MARK}={mark}".encode()
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in file.read_bytes().split(b"\0"):
                found.append(int(file.parent.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found
