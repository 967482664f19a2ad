"""Reads byte ranges of many files, from many threads."""

import os
import threading
from collections import OrderedDict
from pathlib import Path

from curation import storage


class _OpenFile:
    """A descriptor for `pread`, closed with the last reference to it; an `io.FileIO` would warn then."""

    __slots__ = ("_handle",)

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY)

    def fileno(self) -> int:
        return self._handle

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)


class RangeReader:
    """Reads byte ranges; keeps the last few local files open, so that a tar is opened once.

    Thread safe: `pread` needs no shared position, and a file that falls out of the cache is closed only when
    nobody reads from it.
    """

    def __init__(self, max_open: int = 8) -> None:
        self._max_open = max_open
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _OpenFile] = OrderedDict()

    def read(self, path: str, offset: int, num_bytes: int) -> bytes:
        """Exactly `num_bytes` from `offset`.

        Raises:
            OSError: when the file cannot be read, or ends before the range does.
        """
        if not storage.is_local(path):
            data = storage.read_bytes(path, offset, num_bytes)
        else:
            stream = self._stream(path)
            data = os.pread(stream.fileno(), num_bytes, offset)
            while 0 < len(data) < num_bytes and (
                more := os.pread(stream.fileno(), num_bytes - len(data), offset + len(data))
            ):
                data += more
        if len(data) != num_bytes:
            raise OSError(f"{storage.redact(path)} ends at {offset + len(data)}, before {offset + num_bytes}")
        return data

    def _stream(self, path: str) -> _OpenFile:
        with self._lock:
            stream = self._open.pop(path, None)
            if stream is None:
                stream = _OpenFile(storage.local_path(path))
            self._open[path] = stream
            if len(self._open) > self._max_open:
                self._open.popitem(last=False)  # closed by its reference count, after the last pread on it
            return stream

    def close(self) -> None:
        """Forget every open file."""
        with self._lock:
            self._open.clear()

    def __enter__(self) -> "RangeReader":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
