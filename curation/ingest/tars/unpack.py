"""A compressed tar is unpacked into a plain one, which is then indexed as any other."""

import bz2
import contextlib
import gzip
import lzma
import zlib
from collections.abc import Iterator
from typing import IO, BinaryIO, cast

from curation import storage
from curation.ingest.one_pass import Read, arrow_unpacked
from curation.ingest.problems import Problem
from curation.ingest.rows import FoundRows, rows_table
from curation.ingest.sources import TarSource
from curation.ingest.staging import Place
from curation.ingest.tars.tar_index import Unpacked, index_tar

_CHUNK_BYTES = 1 << 18
_ATTEMPTS = 3  # at a file whose reading fails, before it is reported
# Photographs hardly shrink and texts shrink twentyfold; what unpacks to more than this many times its size,
# beyond the first gigabyte, is a bomb.
_MAX_RATIO = 100
_FREE_BYTES = 1 << 30
_MAGIC_BYTES = 6
# Four times what `xz -9` asks for; a header may claim 4 GiB. The other formats have limits of their own: zstd
# 128 MiB, as Arrow sets it.
_MAX_XZ_BYTES = 256 << 20


class _CannotReadError(Exception):
    """The compressed bytes cannot be read at all; kept apart from damage, which is an OSError too."""


class _Reads:
    """The compressed bytes as a stream of which the start may be looked at first."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._start = self._take(_MAGIC_BYTES)
        self.magic = self._start

    def _take(self, num_bytes: int) -> bytes:
        try:
            return self._read(num_bytes)
        except OSError as error:
            raise _CannotReadError(str(error)) from error

    def read(self, num_bytes: int = -1) -> bytes:
        start = self._start if num_bytes < 0 else self._start[:num_bytes]
        self._start = self._start[len(start) :]
        return start or self._take(num_bytes)


def unpack_tar(file: storage.FileInfo, source: TarSource, place: Place) -> FoundRows:
    """Unpack a compressed tar to `000000.tar` and index that.

    What was unpacked before the data ended, broke, or came to more than the caps is kept; the rest is named.
    Rows, their keys and their order are those of the same tar uncompressed.

    Args:
        file: the tar, as listed; one that is not compressed in spite of its name is copied.
    """
    target = place.out / "000000.tar"
    for attempt in range(_ATTEMPTS):
        with target.open("wb") as out:
            try:
                problem = _unpack(file, source, out)
            except _CannotReadError as error:
                problem = Problem(file.path, "unreadable", str(error), out.tell())
            num_bytes = out.tell()
        if problem is None or problem.what != "unreadable" or attempt + 1 == _ATTEMPTS:
            break
    if problem is None:
        return _index(file, source, place, num_bytes)
    num_again = int(problem.what == "unreadable")
    if num_bytes == 0:
        target.unlink()
        return FoundRows(rows_table([]), [problem], [], num_again)
    found = _index(file, source, place, num_bytes)
    # One cause is told once: that the plain tar ends early follows from what ended the unpacking.
    others = [p for p in found.problems if p.what not in ("truncated", "no_end")]
    return FoundRows(found.table, [problem, *others], found.notes, num_again)


def _index(file: storage.FileInfo, source: TarSource, place: Place, num_bytes: int) -> FoundRows:
    name = "000000.tar"
    unpacked = Unpacked(str(place.out / name), num_bytes, f"{place.folder}/{name}")
    return index_tar(file, source, unpacked=unpacked)


def _unpack(file: storage.FileInfo, source: TarSource, out: IO[bytes]) -> Problem | None:
    """Write the plain bytes; returns what ended them before their end."""
    limit = min(source.max_unpacked_bytes, max(_FREE_BYTES, _MAX_RATIO * file.num_bytes))
    chunks = _chunks(file)
    while True:
        try:
            chunk = next(chunks, b"")
        except EOFError:
            return Problem(file.path, "truncated", "the compressed data end early", out.tell())
        except _TooMuchMemoryError:
            detail = f"unpacking it takes more than {_MAX_XZ_BYTES} bytes of memory"
            return Problem(file.path, "unpacks_too_large", detail, out.tell())
        except (OSError, zlib.error, lzma.LZMAError) as error:
            return Problem(file.path, "corrupt", f"the compressed data are damaged: {error}", out.tell())
        if not chunk:
            return None
        if out.tell() + len(chunk) > limit:
            detail = (
                f"{file.num_bytes} bytes unpack to more than {limit}; max_unpacked_bytes is "
                f"{source.max_unpacked_bytes}, and so is {_MAX_RATIO} times the file's size from 1 GiB on"
            )
            return Problem(file.path, "unpacks_too_large", detail, out.tell())
        out.write(chunk)


def _chunks(file: storage.FileInfo) -> Iterator[bytes]:
    """The plain bytes, piece by piece: as much as there is before an error comes."""
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(storage.open_stream(file.path))
        except OSError as error:
            raise _CannotReadError(str(error)) from error
        read = _decompressor(_Reads(stream.read), stack)
        while chunk := read(_CHUNK_BYTES):
            yield chunk


def _decompressor(source: _Reads, stack: contextlib.ExitStack) -> Read:
    """Told by the first bytes and not by the name, which may be wrong."""
    stream = cast(BinaryIO, source)
    # `read1`, since `read` forgets what it has when the data end early.
    if source.magic.startswith(b"\x1f\x8b"):
        return stack.enter_context(gzip.GzipFile(fileobj=stream)).read1
    if source.magic.startswith(b"BZh"):
        return stack.enter_context(bz2.BZ2File(stream)).read1
    if source.magic.startswith(b"\xfd7zXZ"):
        return _Xz(source.read).read
    if source.magic.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstd(source)
    return source.read


class _TooMuchMemoryError(Exception):
    """A header claims a dictionary of a size that nobody needs."""


class _Xz:
    """The streams of an xz file, one after another, within a limit of memory, which `LZMAFile` has not."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_XZ_BYTES)

    def read(self, num_bytes: int) -> bytes:
        while True:
            data = b""
            if self._stream.eof:
                data = self._next_stream()
                if not data:
                    return b""
            elif self._stream.needs_input and not (data := self._read(_CHUNK_BYTES)):
                raise EOFError("an xz stream ends early")
            try:
                found = self._stream.decompress(data, num_bytes)
            except lzma.LZMAError as error:
                if "emory usage limit" in str(error):
                    raise _TooMuchMemoryError from error
                raise
            if found:
                return found

    def _next_stream(self) -> bytes:
        """The first bytes of another stream, behind zeros; none where what follows is no stream."""
        data = self._stream.unused_data.lstrip(b"\0")
        while len(data) < _MAGIC_BYTES and (more := self._read(_CHUNK_BYTES)):
            data = (data + more).lstrip(b"\0")
        if not data.startswith(b"\xfd7zXZ\0"):
            return b""
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_XZ_BYTES)
        return data


def _zstd(source: _Reads) -> Read:
    unpacked = arrow_unpacked(source.read, "zstd")

    def read(num_bytes: int) -> bytes:
        try:
            return unpacked(num_bytes)
        except OSError as error:
            if "Truncated" in str(error):
                raise EOFError(str(error)) from error
            raise

    return read
