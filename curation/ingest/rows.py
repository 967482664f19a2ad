"""Rows of the `images` table: made from files, and read back as bytes."""

import errno
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from curation import storage
from curation.ingest.problems import Problem
from curation.ingest.sidecars import Sidecar
from curation.outages import RestingError
from curation.ranges import RangeReader
from curation.read_ahead import Range
from curation.schema import IMAGES

# A store that stutters is asked again after so long; then the image is unreadable.
RETRY_WAITS_S = (0.1, 1.0)
# Waiting brings back no local file that is gone, has changed, or lies on a disk that does not answer.
_GONE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, RestingError)
_FINAL_HERE = (errno.ESTALE, errno.EINVAL, errno.ETIMEDOUT)


class ImageRow(NamedTuple):
    """One row of `schema.IMAGES`, its fields in the schema's order."""

    key: str
    uri: str
    path: str
    offset: int
    num_bytes: int
    version: str
    sidecars: list[Sidecar]
    reason: str | None


@dataclass(frozen=True, slots=True)
class FoundRows:
    """Rows of a part, a tar or a unit, and what came to light while they were read."""

    table: pa.Table  # schema.IMAGES
    problems: list[Problem]  # not read: the run ends degraded and names them
    notes: list[Problem]  # odd, but nothing is missing
    num_again: int = 0  # rows that may succeed when they are asked for again


def rows_table(rows: Sequence[ImageRow]) -> pa.Table:
    """The rows as a table of `schema.IMAGES`, in their order."""
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in IMAGES]
    columns[6] = [
        [
            {"name": as_text(name), "path": as_text(f.path), "offset": f.offset, "num_bytes": f.num_bytes}
            for name, f in sidecars
        ]
        for sidecars in columns[6]
    ]
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, IMAGES, strict=True)], schema=IMAGES
    )


def as_text(name: str) -> str:
    """`name`, bytes that are not UTF-8 (escaped surrogates) as %XX: Arrow and JSON take no surrogates."""
    if name.isascii() or not any("\ud800" <= c <= "\udfff" for c in name):
        return name
    return "".join(f"%{ord(c) & 0xFF:02X}" if "\ud800" <= c <= "\udfff" else c for c in name)


def image_range(row: Mapping[str, Any]) -> Range:
    """Where the bytes of an image lie, for a reader that reads ahead; of a row whose `reason` is null."""
    return Range(row["path"], row["offset"], row["num_bytes"])


def sample_ranges(row: Mapping[str, Any]) -> list[Range]:
    """Where the bytes of an image and of its sidecars lie, in the order in which they are read."""
    sidecars = [Range(s["path"], s["offset"], s["num_bytes"]) for s in row["sidecars"]]
    return [image_range(row), *sidecars]


def read_sample(
    reader: RangeReader, row: Mapping[str, Any], *, waits_s: Sequence[float] = RETRY_WAITS_S
) -> bytes:
    """The bytes of an image; a read that fails is tried again.

    Args:
        row: a row of `schema.IMAGES` whose `reason` is null.
        waits_s: what to wait before each further try.

    Raises:
        OSError: when they cannot be read; ESTALE where the file is another than the one that was listed.
    """
    return _read(reader, row["path"], row["offset"], row["num_bytes"], waits_s=waits_s)


def read_sidecars(
    reader: RangeReader, row: Mapping[str, Any], *, lost: list[tuple[str, OSError]] | None = None
) -> dict[str, bytes]:
    """The bytes of an image's sidecars, by their names within the sample; ingest has capped their sizes.

    Args:
        lost: files of those that cannot be read, and why, are added here: they cost the image nothing.

    Raises:
        OSError: when one cannot be read, and there is no `lost`.
    """
    found: dict[str, bytes] = {}
    for sidecar in row["sidecars"]:
        try:
            found[sidecar["name"]] = _read(reader, sidecar["path"], sidecar["offset"], sidecar["num_bytes"])
        except OSError as error:
            if lost is None:
                raise
            lost.append((sidecar["path"], error))
    return found


def has_changed(error: OSError) -> bool:
    """Whether a read failed since another file, or none, lies where one was read before."""
    gone = isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError)
    return gone or error.errno in (errno.ESTALE, errno.EINVAL)


def _read(
    reader: RangeReader, path: str, offset: int, num_bytes: int, *, waits_s: Sequence[float] = RETRY_WAITS_S
) -> bytes:
    for wait_s in waits_s:
        try:
            return _read_once(reader, path, offset, num_bytes)
        except _GONE:
            raise
        except OSError as error:
            if error.errno in _FINAL_HERE and storage.is_local(path):
                raise
            time.sleep(wait_s)
    return _read_once(reader, path, offset, num_bytes)


def _read_once(reader: RangeReader, path: str, offset: int, num_bytes: int) -> bytes:
    data = reader.read(path, offset, num_bytes)
    # What begins a file is all of it: a tar begins with a header.
    now = reader.num_bytes(path) if offset == 0 else None
    if now is not None and now != num_bytes:
        raise OSError(errno.ESTALE, f"{storage.redact(path)} has {now} bytes; it was listed with {num_bytes}")
    return data
