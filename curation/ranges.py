"""Reads byte ranges of many files, from many threads."""

import os
import threading
from pathlib import Path

from curation import storage


class _OpenFile:
    """A descriptor for `pread`, closed with the last reference to it; an `io.FileIO` would warn then."""

    __slots__ = ("handle",)

    def __init__(self, path: Path) -> None:
        self.handle = os.open(path, os.O_RDONLY)

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
            OSError: when the file cannot be read, or ends before the range does.
        """
        stream = self._open.get(path)
        if stream is None and not storage.is_local(path):
            data = storage.read_bytes(path, offset, num_bytes)
        else:
            stream = stream or self._opened(path)
            data = os.pread(stream.handle, num_bytes, offset)
            while 0 < len(data) < num_bytes and (
                more := os.pread(stream.handle, num_bytes - len(data), offset + len(data))
            ):
                data += more
        if len(data) != num_bytes:
            raise OSError(f"{storage.redact(path)} ends at {offset + len(data)}, before {offset + num_bytes}")
        return data

    def _opened(self, path: str) -> _OpenFile:
        with self._lock:
            stream = self._open.get(path)
            if stream is None:
                stream = self._open[path] = _OpenFile(storage.local_path(path))
            if len(self._open) > self._max_open:
                self._open.pop(next(iter(self._open)))  # closed by its reference count, after the last pread
            return stream

    def close(self) -> None:
        """Forget every open file."""
        with self._lock:
            self._open.clear()

    def __enter__(self) -> "RangeReader":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
