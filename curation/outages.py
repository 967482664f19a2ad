"""A store that fails again and again is left alone for a while: each request to it costs up to a minute.

A driver repeats a request that fails for as long as 40 seconds before it tells anybody. A pool of a million
images on a store that is down would keep a run busy for weeks, to say of each that it cannot be read.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

# After so many requests in a row that a driver gave up, by all threads of a process, a store is left alone,
MAX_FAILURES = 10
# and before that when they have cost so many seconds, added up.
MAX_LOST_S = 60.0
# Seconds until it is asked again, once; if that fails too, as many again.
REST_S = 60.0


def store_of(path: str) -> str:
    """What answers for a path: scheme and bucket of a URL."""
    return "/".join(path.split("/", 3)[:3])


class RestingError(OSError):
    """A store is not asked for a while; to try again at once is in vain."""


@dataclass
class _StoreState:
    num_failures: int = 0
    lost_s: float = 0.0
    rests_until_s: float = 0.0

    def is_down(self) -> bool:
        return self.num_failures >= MAX_FAILURES or self.lost_s >= MAX_LOST_S


class Outages:
    """How many requests in a row have failed, and what they cost, by store; thread safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._states: dict[str, _StoreState] = {}

    def require(self, store: str) -> None:
        """See that a store may be asked.

        Raises:
            RestingError: when it rests.
        """
        with self._lock:
            state = self._states.get(store)
            if state is None or not state.is_down():
                return
            if self._clock() >= state.rests_until_s:  # this request tries; the others wait for what it finds
                state.rests_until_s = self._clock() + REST_S
                return
            raise RestingError(f"{store} is not asked: its last {state.num_failures} requests failed")

    def failed(self, store: str, *, lost_s: float) -> None:
        """Take note of a request that the driver gave up after `lost_s` seconds."""
        with self._lock:
            state = self._states.setdefault(store, _StoreState())
            state.num_failures += 1
            state.lost_s += lost_s
            state.rests_until_s = self._clock() + REST_S

    def answered(self, store: str) -> None:
        """Take note of an answer, if only that there is no such file."""
        with self._lock:
            self._states.pop(store, None)
