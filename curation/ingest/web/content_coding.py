"""Undoes the codings in which a body was sent, piece by piece and up to a limit, whatever it comes to.

Source: RFC 9110, §8.4 (Content-Encoding); RFC 1950 to 1952 (zlib, deflate, gzip).
"""

import zlib
from collections.abc import Callable, Sequence

import pyarrow as pa

from curation.ingest.one_pass import Read, arrow_unpacked

_ZLIB = ("gzip", "x-gzip", "deflate")
_ARROW = {"br": "brotli", "zstd": "zstd"}
_ZLIB_OR_GZIP, _RAW_DEFLATE = 47, -15  # window bits of zlib: 15, and 32 for telling the two by their headers
_CHUNK_BYTES = 1 << 16
MAX_CODINGS = 3  # one upon another; who sends more means harm
_MAX_MEMBERS = 1024  # of gzip, one after another


class CodingError(Exception):
    """A body is not in the coding that it claims."""


def codings_of(header: str) -> tuple[str, ...] | None:
    """The codings that a `Content-Encoding` names, in the order in which they were applied.

    Returns:
        None where one of them is unknown, as in `Content-Encoding: UTF-8`, or there are too many.
    """
    names = [name for part in header.lower().split(",") if (name := part.strip()) not in ("", "identity")]
    is_known = all(name in _ZLIB or name in _ARROW for name in names)
    return tuple(names) if is_known and len(names) <= MAX_CODINGS else None


def decode(read: Read, codings: Sequence[str], write: Callable[[bytes], object], *, limit: int) -> None:
    """Write what a body was before it was coded.

    Data that end early, or break, are taken as far as they go: what is left of a picture is for its decoder
    to judge.

    Args:
        limit: no more than this many bytes are written.

    Raises:
        CodingError: when it is in no such coding; nothing has been written then.
    """
    for coding in reversed(codings):
        read = _Inflate(read).read if coding in _ZLIB else _arrow_reader(read, _ARROW[coding])
    left = limit
    try:
        while left > 0 and (piece := read(min(left, _CHUNK_BYTES))):
            write(piece)
            left -= len(piece)
    except CodingError:
        if left == limit:
            raise


class _Inflate:
    """Undoes gzip and deflate; of the latter also the form without a header, which some servers send."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._inflate = zlib.decompressobj(_ZLIB_OR_GZIP)
        self._num_members, self._is_first = 1, True

    def read(self, num_bytes: int) -> bytes:
        while True:
            data = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            data = data or self._read(_CHUNK_BYTES)
            if self._inflate.eof:
                if not data.startswith(b"\x1f\x8b") or self._num_members == _MAX_MEMBERS:
                    return b""
                self._inflate = zlib.decompressobj(_ZLIB_OR_GZIP)
                self._num_members += 1
            found = self._inflated(data, num_bytes)
            if found or not data:
                return found

    def _inflated(self, data: bytes, num_bytes: int) -> bytes:
        is_first, self._is_first = self._is_first, False
        try:
            return self._inflate.decompress(data, num_bytes)
        except zlib.error as error:
            if not is_first:
                raise CodingError(str(error)) from error
        try:
            self._inflate = zlib.decompressobj(_RAW_DEFLATE)
            return self._inflate.decompress(data, num_bytes)
        except zlib.error as error:
            raise CodingError(str(error)) from error


def _arrow_reader(read: Read, codec: str) -> Read:
    unpacked = arrow_unpacked(read, codec)

    def read_plain(num_bytes: int) -> bytes:
        try:
            return unpacked(num_bytes)
        except (OSError, pa.ArrowException) as error:
            raise CodingError(str(error)) from error

    return read_plain
