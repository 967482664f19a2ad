"""Whether files hold the bytes that were written: each is hashed once, and again when it has changed since.

A hash is known of everything that is published. To ask it takes a pass over the file, so the answer is
remembered together with what the file system says of the file: one whose size, times or place on the disk are
others is hashed again. Damage that leaves all of these as they were, as a failing disk does, is found by
whoever hashes the file first.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from curation import storage
from curation.local_reads import NotRegularError

_NUM_LOCKS = 64
_LOCK_BITS = 48  # a place far behind the record's end, which a lock may name
_MIN_STALE = 1000  # lines that speak of what a file was before: fewer are let be


class _Seen(NamedTuple):
    stamp: str
    sha256: str


class Hashes:
    """The hashes of files, remembered; safe to share between threads.

    Args:
        record: a local file in which other processes, and later ones, find what was hashed. Two processes
            that write it never hash one file at once: one waits for the other. None: this process alone.
        writes: whether the record is written, or only read where there is one.
    """

    def __init__(self, record: Path | None = None, *, writes: bool = True) -> None:
        self._record, self._writes = record, writes
        self._seen: dict[str, _Seen] = {}
        self._handle: int | None = None
        self._num_read = 0  # bytes of the record
        self._opening = threading.Lock()
        self._locks = [threading.Lock() for _ in range(_NUM_LOCKS)]

    def __del__(self) -> None:
        if self._handle is not None:
            os.close(self._handle)

    def holds(self, path: str, sha256: str) -> bool:
        """Whether a file is there and has this hash.

        Raises:
            OSError: when it cannot be read.
        """
        try:
            return self.sha256(path) == sha256
        except (FileNotFoundError, NotRegularError):
            return False

    def sha256(self, path: str) -> str:
        """The hash of a file as it is now, in hex.

        Raises:
            OSError: when it cannot be read.
        """
        stamp = stamp_of(path)
        if (known := self._known(path, stamp)) is not None:
            return known
        with self._locks[hash(path) % _NUM_LOCKS], self.alone(path):
            self._read_record()
            if (known := self._known(path, stamp)) is not None:
                return known
            sha256, _ = storage.sha256_file(path)
            if stamp_of(path) == stamp:
                self._note(path, _Seen(stamp, sha256))
            return sha256

    def told(self, path: str) -> str:
        """The hash of a file, or why there is none, in words.

        Raises:
            OSError: when it cannot be read.
        """
        try:
            return self.sha256(path)
        except FileNotFoundError:
            return "none: there is no such file"
        except NotRegularError:
            return "none: it is no regular file"

    def remember(self, path: str, sha256: str) -> None:
        """Note the hash of a file whose bytes have just been seen; one that is gone by now is forgotten."""
        with contextlib.suppress(FileNotFoundError):
            self._note(path, _Seen(stamp_of(path), sha256))

    def _known(self, path: str, stamp: str) -> str | None:
        seen = self._seen.get(path)
        return seen.sha256 if seen is not None and seen.stamp == stamp else None

    def _note(self, path: str, seen: _Seen) -> None:
        self._seen[path] = seen
        handle = self._opened()
        if handle is not None and self._writes:
            os.write(handle, _line(path, seen).encode())  # one append, which none can tear

    def _read_record(self) -> None:
        """Take in what others have added to the record."""
        handle = self._opened()
        if handle is None:
            return
        with self._opening:
            size = os.fstat(handle).st_size
            if size < self._num_read:  # another process has compacted it
                self._num_read = 0
            is_whole = self._num_read == 0
            added = os.pread(handle, size - self._num_read, self._num_read)
            text, end, _ = added.rpartition(b"\n")
            self._num_read += len(text) + len(end)
        lines = text.splitlines()
        for line in lines:
            # What cannot be read is forgotten: the file that it spoke of is hashed again.
            with contextlib.suppress(ValueError, TypeError, RecursionError):
                path, stamp, sha256 = json.loads(line)
                self._seen[str(path)] = _Seen(str(stamp), str(sha256))
        if is_whole and self._writes and len(lines) > 2 * len(self._seen) + _MIN_STALE:
            self._compact(handle)

    def _compact(self, handle: int) -> None:
        """Leave one line a file in the record, which is the same file as before: locks of others lie on it.

        What another process adds at that moment may be lost, and then that file is hashed again.
        """
        with self._opening:
            data = "".join(_line(path, seen) for path, seen in self._seen.copy().items()).encode()
            os.ftruncate(handle, 0)
            os.write(handle, data)
            self._num_read = len(data)

    def _opened(self) -> int | None:
        with self._opening:
            if self._handle is None and self._record is not None:
                flags = os.O_RDWR | os.O_CREAT | os.O_APPEND if self._writes else os.O_RDONLY
                if self._writes:
                    self._record.parent.mkdir(parents=True, exist_ok=True)
                flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
                with contextlib.nullcontext() if self._writes else contextlib.suppress(FileNotFoundError):
                    self._handle = os.open(self._record, flags, 0o666)
                if self._handle is not None and not stat.S_ISREG(os.fstat(self._handle).st_mode):
                    os.close(self._handle)
                    self._handle = self._record = None  # a pipe, or a device: nothing is remembered
            return self._handle

    @contextlib.contextmanager
    def alone(self, path: str) -> Iterator[None]:
        """Let no other process that writes the record hash, or make, the same file meanwhile."""
        handle = self._opened()
        if handle is None or not self._writes:
            yield
            return
        digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=_LOCK_BITS // 8)
        place = int.from_bytes(digest.digest(), "big") + (1 << _LOCK_BITS)
        fcntl.lockf(handle, fcntl.LOCK_EX, 1, place)
        try:
            yield
        finally:
            fcntl.lockf(handle, fcntl.LOCK_UN, 1, place)


def _line(path: str, seen: _Seen) -> str:
    return f"{json.dumps([path, *seen])}\n"


def stamp_of(path: str) -> str:
    """What changes when a file changes: its place on the disk, size and times, or what a store tells of it.

    Raises:
        FileNotFoundError: when there is no such file.
    """
    if not storage.is_local(path):
        return storage.stat(path).version
    found = storage.local_path(path).stat()
    # Beside the time of its bytes that of its record, which nobody can set back.
    return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"
