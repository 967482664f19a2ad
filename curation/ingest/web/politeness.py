"""How often a host is asked: so many requests at once, so many a second, and none while it asks for a pause.

The limits hold for all processes that are given the same folder. Each host owns a range of bytes of one file
that is never written: a process that holds the lock on one of them has one of the host's turns. The system
lets go of the locks of a process that dies. A second file has the time of every host's next request.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import struct
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_MAX_TURNS = 1 << 12  # the most turns of one host that the file has room for
_CLOCKS = 1 << 20  # hosts share one of so many clocks: a clash makes two hosts take turns, and nothing worse
_CLOCK = struct.Struct("<d")
# Between two looks at turns that another process has: little beside a request over the internet.
_POLL_S = 0.02
# A clock is looked at again after so long: somebody may have set the machine's.
_LONGEST_WAIT_S = 60.0


@dataclass
class _Host:
    turns: asyncio.Semaphore
    number: int  # of its bytes, and of its clock
    failures: int = 0  # in a row
    reason: str = ""  # of the last
    free: list[int] = field(default_factory=list)


class HostLimits:
    """Gives out the turns of every host, in one event loop and among all processes.

    Args:
        folder: for the two files; all processes that share the limits are given the same one.
        max_requests: requests under way at once in this event loop.
        max_per_host: requests under way at once to one host, by all processes.
        per_s: requests to one host a second, by all processes; None: no limit.
        give_up_after: failures of a host in a row after which it is given up.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_requests: int,
        max_per_host: int,
        per_s: float | None,
        give_up_after: int,
    ) -> None:
        self._max_per_host = min(max_per_host, _MAX_TURNS)
        self._interval_s = 1 / per_s if per_s else 0.0
        self._give_up_after = give_up_after
        self._all = asyncio.Semaphore(max_requests)
        self._hosts: dict[str, _Host] = {}
        folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._turns_fd = os.open(folder / "turns", flags, 0o666)
        self._clocks_fd = os.open(folder / "clocks", flags, 0o666)

    def close(self) -> None:
        """Let go of all turns."""
        os.close(self._turns_fd)
        os.close(self._clocks_fd)

    @contextlib.asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Wait until a host may be asked, and hold the turn meanwhile.

        While a request waits for its host it holds none of the `max_requests`: a slow host keeps nobody up.
        """
        host = self._host(name)
        async with host.turns:
            byte = await self._take_turn(host)
            try:
                await self._wait_for_time(host)
                try:
                    yield
                finally:
                    self._all.release()
            finally:
                fcntl.lockf(self._turns_fd, fcntl.LOCK_UN, 1, byte)
                host.free.append(byte)

    def pause(self, name: str, seconds: float) -> None:
        """Leave a host alone for so long, as it asked."""
        host = self._host(name)
        with self._locked_clock(host):
            self._set_due(host, max(self._due(host), time.time() + seconds))

    def note_answer(self, name: str) -> None:
        """The host is alive."""
        self._host(name).failures = 0

    def note_failure(self, name: str, reason: str) -> None:
        """A connection to the host failed, or it took too long."""
        host = self._host(name)
        host.failures, host.reason = host.failures + 1, reason

    def given_up(self, name: str) -> str | None:
        """Why a host is not asked any more, or None."""
        host = self._host(name)
        return host.reason if host.failures >= self._give_up_after else None

    def _host(self, name: str) -> _Host:
        host = self._hosts.get(name)
        if host is None:
            digest = hashlib.blake2b(name.encode(), digest_size=6).digest()
            number = int.from_bytes(digest, "big")
            free = [number * _MAX_TURNS + turn for turn in reversed(range(self._max_per_host))]
            host = _Host(asyncio.Semaphore(self._max_per_host), number, free=free)
            self._hosts[name] = host
        return host

    async def _take_turn(self, host: _Host) -> int:
        """Lock one of the host's bytes that no other process has."""
        while True:
            for byte in reversed(host.free):
                with contextlib.suppress(BlockingIOError, PermissionError):  # another process has it
                    fcntl.lockf(self._turns_fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
                    host.free.remove(byte)
                    return byte
            await asyncio.sleep(_POLL_S)

    async def _wait_for_time(self, host: _Host) -> None:
        """Wait until the host's next request is due, and then for one of `max_requests`, which is held."""
        while True:
            while (wait_s := min(self._due(host) - time.time(), _LONGEST_WAIT_S)) > 0:
                await asyncio.sleep(wait_s)
            await self._all.acquire()
            if self._book(host):
                return
            self._all.release()  # another request was faster, or the host has asked for a pause

    def _book(self, host: _Host) -> bool:
        """Take the time that has come, and put the host's clock forward."""
        if not self._interval_s:
            return self._due(host) <= time.time()
        with self._locked_clock(host):
            now = time.time()
            if self._due(host) > now:
                return False
            self._set_due(host, now + self._interval_s)
            return True

    @contextlib.contextmanager
    def _locked_clock(self, host: _Host) -> Iterator[None]:
        offset = _clock_offset(host)
        fcntl.lockf(self._clocks_fd, fcntl.LOCK_EX, _CLOCK.size, offset)
        try:
            yield
        finally:
            fcntl.lockf(self._clocks_fd, fcntl.LOCK_UN, _CLOCK.size, offset)

    def _due(self, host: _Host) -> float:
        known = os.pread(self._clocks_fd, _CLOCK.size, _clock_offset(host))
        return float(_CLOCK.unpack(known)[0]) if len(known) == _CLOCK.size else 0.0

    def _set_due(self, host: _Host, due: float) -> None:
        os.pwrite(self._clocks_fd, _CLOCK.pack(due), _clock_offset(host))


def _clock_offset(host: _Host) -> int:
    return host.number % _CLOCKS * _CLOCK.size
