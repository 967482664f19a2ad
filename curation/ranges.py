"""Reads byte ranges of many files, from many threads."""

import errno
import os
import threading
from pathlib import Path

from curation import local_reads, storage


class _OpenFile:
    """A descriptor for `pread`, closed with the last reference to it; an `io.FileIO` would warn then."""

    __slots__ = ("handle", "num_bytes", "path")

    def __init__(self, path: Path, handle: int, num_bytes: int) -> None:
        self.path, self.handle, self.num_bytes = path, handle, num_bytes

    def read(self, offset: int, num_bytes: int) -> bytes:
        return local_reads.read_range(self.path, self.handle, offset, num_bytes)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)


class RangeReader:
    """Reads byte ranges; keeps the files opened last open, so that a tar is opened once.

    Thread safe: `pread` needs no shared position, and a file that falls out of the cache is closed only when
    nobody reads from it.
    """

    def __init__(self, max_open: int = 8) -> None:
        self._max_open = max_open
        self._lock = threading.Lock()
        self._open: dict[str, _OpenFile] = {}  # local ones, in the order in which they were opened

    def read(self, path: str, offset: int, num_bytes: int) -> bytes:
        """Exactly `num_bytes` from `offset`.

        Raises:
            OSError: when the file cannot be read; ESTALE where it ends before the range does.
        """
        stream = self._open.get(path)
        if stream is not None:
            data = stream.read(offset, num_bytes)
        elif storage.is_local(path):
            data = self._open_and_read(path, offset, num_bytes)
        else:
            data = storage.read_bytes(path, offset, num_bytes)
        if len(data) != num_bytes:
            ends = f"{storage.redact(path)} ends at {offset + len(data)}, before {offset + num_bytes}"
            raise OSError(errno.ESTALE, ends)
        return data

    def num_bytes(self, path: str) -> int | None:
        """The size of a local file among those that were opened last; None of any other."""
        stream = self._open.get(path)
        return None if stream is None else stream.num_bytes

    def _open_and_read(self, path: str, offset: int, num_bytes: int) -> bytes:
        here = storage.local_path(path)
        handle, size, data = local_reads.open_and_read(here, offset, num_bytes)
        stream = _OpenFile(here, handle, size)
        with self._lock:
            self._open.setdefault(path, stream)
            if len(self._open) > self._max_open:
                self._open.pop(next(iter(self._open)))  # closed by its reference count, after the last pread
        rest = num_bytes - len(data)
        return data + stream.read(offset + len(data), rest) if data and rest else data

    def forget(self, path: str) -> None:
        """Close a file: another lies there by now."""
        with self._lock:
            self._open.pop(path, None)

    def close(self) -> None:
        """Forget every open file."""
        with self._lock:
            self._open.clear()

    def __enter__(self) -> "RangeReader":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
