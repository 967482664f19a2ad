"""Local files as they are read: regular ones only, and no call that waits for ever.

A pipe that nobody writes to, a device, or a network disk whose server does not answer lets a call hang, and
nothing ends it. So what is no regular file is refused before a byte is asked for, and calls are made by
threads of their own: one that has no answer in time is left behind, and whoever asked gets an error.
"""

import contextlib
import errno
import io
import os
import queue
import re
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from curation.disk_errors import lack

# A network disk's server that starts again asks its clients for 90 s of patience.
DEADLINE_S = 120.0
# So many calls in a row that hang on a disk, and it is not asked any more as long as they do.
MAX_HUNG = 4
# Of one call: at 100 kB/s it has its answer in time.
_PIECE_BYTES = 8 << 20
_MOUNTS = Path("/proc/self/mountinfo")

T = TypeVar("T")

_idle: dict[int, list["_Caller"]] = {}  # by process: threads do not outlive a fork
_hung: dict[str, int] = {}  # disk → calls in a row that hang there
_state = threading.Lock()


class NotRegularError(OSError):
    """A file that may never answer, or never end."""


class _Caller:
    """A thread that makes calls for others."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._left_on: str | None = None  # the disk that its call hangs on, once nobody waits for it
        threading.Thread(target=self._serve, name="file-calls", daemon=True).start()

    def ask(
        self, call: Callable[[], T], deadline_s: float, progress: Callable[[], int] | None
    ) -> tuple[T, BaseException | None]:
        self._asked.put(call)
        before = None
        while progress is not None and (now := progress()) != before:
            before = now
            with contextlib.suppress(queue.Empty):
                return self._answers.get(timeout=deadline_s)
        return self._answers.get(timeout=0 if progress else deadline_s)

    def leave(self, disk: str) -> None:
        """Nobody waits any more: the thread ends with its call, should that ever end."""
        with _state:
            _hung[disk] = _hung.get(disk, 0) + 1
            self._left_on = disk

    def _serve(self) -> None:
        while self._left_on is None:
            answer: tuple[Any, BaseException | None]
            try:
                answer = (self._asked.get()(), None)
            except BaseException as error:  # whoever asked raises it
                answer = (None, error)
            self._answers.put(answer)
            del answer
            with _state:
                if self._left_on is not None:
                    _hung.pop(self._left_on, None)


def in_time(path: str | Path, call: Callable[[], T], *, progress: Callable[[], int] | None = None) -> T:
    """What `call` returns or raises, if it ends within `DEADLINE_S`.

    Args:
        call: any number of system calls that together take no longer than a moment.
        progress: how far it is; as long as that changes within `DEADLINE_S`, a call may take its time.

    Raises:
        TimeoutError: the disk does not answer, or has not answered the calls before this one.
        ExecutorError: as `lack` says.
    """
    if _hung and _hung.get(disk_of(path), 0) >= MAX_HUNG:
        raise TimeoutError(errno.ETIMEDOUT, f"the disk has not answered for {DEADLINE_S:.0f} s", str(path))
    with _state:
        idle = _idle.setdefault(os.getpid(), [])
        caller = idle.pop() if idle else None
    caller = caller or _Caller()
    try:
        value, error = caller.ask(call, DEADLINE_S, progress)
    except queue.Empty:
        caller.leave(disk_of(path))
        raise TimeoutError(errno.ETIMEDOUT, f"no answer within {DEADLINE_S:.0f} s", str(path)) from None
    idle.append(caller)
    if _hung:
        with _state:
            _hung.pop(disk_of(path), None)
    if error is not None:
        if (lacking := lack(error, path)) is not None:
            raise lacking from error
        raise error
    return value


def disk_of(path: str | Path) -> str:
    """Where the disk is mounted that `path` lies on by its name; asks no disk."""
    try:
        lines = _MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:  # another system than Linux: all is one disk
        return "/"
    full = os.path.abspath(path)  # noqa: PTH100 — `resolve` asks the disk
    mounts = [re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split(" ")[4]) for line in lines]
    within = [m for m in mounts if m == full or full.startswith(m.rstrip("/") + "/")]
    return max(within, key=len, default="/")


def open_regular(path: str | Path) -> tuple[int, int]:
    """A handle for reading a regular file, and its size.

    Raises:
        OSError: it cannot be opened, or is a folder.
        NotRegularError: it is a pipe, a socket or a device.
    """
    # Opened so, a pipe waits for no writer, and reading a regular file is as ever.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(handle)
    kind = found.st_mode
    if not stat.S_ISREG(kind):
        os.close(handle)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise NotRegularError(errno.EINVAL, "not a regular file, but a pipe, a socket or a device", str(path))
    return handle, found.st_size


def require_regular(path: str | Path) -> None:
    """Raise as `open_regular` does; for libraries that open a file by its name."""
    handle, _ = open_regular(path)
    os.close(handle)


def open_and_read(path: Path, offset: int, num_bytes: int) -> tuple[int, int, bytes]:
    """What `open_regular` gives, and of a range the first piece or all: one call for most images."""

    def call() -> tuple[int, int, bytes]:
        handle, size = open_regular(path)
        try:
            return handle, size, os.pread(handle, min(num_bytes, _PIECE_BYTES), offset)
        except OSError:
            os.close(handle)
            raise

    return in_time(path, call)


def read_range(path: str | Path, handle: int, offset: int, num_bytes: int) -> bytes:
    """As many bytes from `offset` as there are, at most `num_bytes`."""
    pieces: list[bytes] = []
    while num_bytes:
        size, at = min(num_bytes, _PIECE_BYTES), offset
        piece = in_time(path, lambda: os.pread(handle, size, at))  # noqa: B023 — ends before the next turn
        if not piece:
            break
        pieces.append(piece)
        offset, num_bytes = offset + len(piece), num_bytes - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class RegularFile(io.RawIOBase):
    """A regular file for one reader, who may seek; each read ends in time."""

    def __init__(self, path: Path) -> None:
        self._path, self._at, self._handle = path, 0, -1
        self._handle, _ = in_time(path, lambda: open_regular(path))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._handle

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        match whence:
            case os.SEEK_CUR:
                offset += self._at
            case os.SEEK_END:
                offset += in_time(self._path, lambda: os.fstat(self._handle).st_size)
        self._at = max(0, offset)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        data = read_range(self._path, self._handle, self._at, len(view))
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        super().close()
