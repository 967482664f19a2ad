"""The `metadata` file of an imagefolder: rows that say something of pictures in its folder and below."""

import functools
import hashlib
import io
import json
import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from curation import storage
from curation.errors import ConfigError
from curation.ingest.problems import Findings, Problem, Tally
from curation.ingest.rows import as_text
from curation.ingest.tables.csv_records import Records
from curation.ingest.tables.parquet_images import BATCH_ROWS, open_parquet
from curation.ingest.tables.row_values import read_values
from curation.ingest.tables.table_images import READING_ERRORS, reading_problem
from curation.ingest.tables.text_lines import Lines, open_text

Row = Mapping[str, Any]
FILE_NAME = "file_name"
# A larger file is read again for every folder of pictures: as Python's values it is many times as large.
_HELD_BYTES = 128 << 20


@dataclass(frozen=True, slots=True)
class _Metadata:
    """Rows by folder and key of their pictures, and what is wrong with the file as a whole."""

    folders: dict[str, dict[str, Row]] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)


def rows_of(metadata: storage.FileInfo, folder: str, *, findings: Findings) -> Mapping[str, Row]:
    """The rows of the pictures that lie directly in a folder, by the keys of these.

    Args:
        folder: its key, without a slash at the end.
        findings: what could not be read is added here; the same for each folder of the file.

    Raises:
        ConfigError: when no row has a `file_name`.
    """
    found = _read_all(metadata) if metadata.num_bytes <= _HELD_BYTES else _read(metadata, only=folder)
    if found.findings.problems:
        _read_all.cache_clear()  # the next time it may be read
    findings.problems.extend(found.findings.problems)
    findings.notes.extend(found.findings.notes)
    return found.folders.get(folder, {})


def note_lost_folders(metadata: storage.FileInfo, folders: Collection[str], findings: Findings) -> None:
    """Note the rows of pictures in folders that hold none: no unit asks for these."""
    if metadata.num_bytes > _HELD_BYTES:
        return
    lost = [
        key for folder, rows in _read_all(metadata).folders.items() if folder not in folders for key in rows
    ]
    if lost:
        detail = f"{len(lost)} rows name pictures in folders without any, such as {as_text(min(lost))}"
        findings.notes.append(Problem(metadata.path, "unmatched", detail))


@functools.lru_cache(maxsize=1)
def _read_all(metadata: storage.FileInfo) -> _Metadata:
    return _read(metadata)


def _read(file: storage.FileInfo, *, only: str | None = None) -> _Metadata:
    base = file.key[: file.key.rfind("/") + 1]
    found = _Metadata()
    seen: set[bytes] = set()
    nameless, repeated = Tally(), Tally()
    names: Row = {}
    for number, row in _numbered_rows(file, found.findings):
        name = row.get(FILE_NAME)
        if not isinstance(name, str) or not name.strip():
            names = names if nameless.num else row
            nameless.add(str(number))
            continue
        key = posixpath.normpath(base + name)
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest in seen:
            repeated.add(name)
        seen.add(digest)
        folder = key.rpartition("/")[0]
        if only is None or folder == only:
            found.folders.setdefault(folder, {})[key] = row
    if nameless.num and not seen:
        raise _nameless(file, names)
    if nameless.num:
        detail = f"{nameless.num} rows have no {FILE_NAME}, the first of them row {nameless.first}"
        found.findings.notes.append(Problem(file.path, "bad_rows", detail))
    if repeated.num:
        example = as_text(repeated.first)
        detail = f"{repeated.num} rows name a picture again, such as {example}: the last counts"
        found.findings.notes.append(Problem(file.path, "duplicate_name", detail))
    return found


def _nameless(file: storage.FileInfo, row: Row) -> ConfigError:
    names = as_text(", ".join(map(str, row))) or "no columns"
    mark = next((mark for mark in ";|\t" if mark in names), None) if len(row) == 1 else None
    return ConfigError(
        f"{storage.redact(file.path)} has no column {FILE_NAME!r}",
        got=names[:500],
        expected=f"{FILE_NAME}: where each picture lies, from the folder of this file on",
        remedy=f"Its fields are apart by {mark!r}: save it with commas, as CSV"
        if mark
        else f"Name the column of the pictures {FILE_NAME}, or take the file away",
    )


def _numbered_rows(file: storage.FileInfo, findings: Findings) -> Iterator[tuple[int, Row]]:
    """The rows of a metadata file that can be read, and their numbers; damage ends them, and is a finding."""
    num_rows, bad = 0, Tally()
    try:
        for number, row in enumerate(_rows(file.path)):
            num_rows += 1
            if row is not None:
                yield number, row
            else:
                bad.add(str(number))
    except READING_ERRORS as error:
        findings.problems.append(reading_problem(file, error, num_rows))
    if bad.num:
        detail = (
            f"{bad.num} rows cannot be read, the first of them row {bad.first}: a bad quote, too many or too "
            "few fields, or no JSON object"
        )
        findings.notes.append(Problem(file.path, "bad_rows", detail))


def _rows(path: str) -> Iterator[dict[str, Any] | None]:
    """The rows, None for one that cannot be read."""
    if path.endswith(".parquet"):
        with open_parquet(path) as file:
            for batch in file.iter_batches(BATCH_ROWS, use_threads=False):
                columns = [read_values(column) for column in batch.columns]
                yield from (
                    dict(zip(batch.schema.names, items, strict=True)) for items in zip(*columns, strict=True)
                )
        return
    # Names of files may be other bytes than UTF-8, and so are they in a listing.
    with storage.open_stream(path) as stream:
        lines = Lines(open_text(cast(io.IOBase, stream)))
        yield from _csv_rows(lines) if path.endswith(".csv") else _json_rows(lines)


def _csv_rows(lines: Lines) -> Iterator[dict[str, Any] | None]:
    """The rows, None for one that cannot be read; without names of columns there are none."""
    first = next(Records(lines, ","), None)
    header = [name.strip(" ") for name in first.fields] if first is not None else []
    for record in Records(lines, ",", header=header):
        if record.fields or record.fault is not None:
            is_whole = record.fault is None and len(record.fields) == len(header)
            yield dict(zip(header, record.fields, strict=True)) if is_whole else None


def _json_rows(lines: Iterable[str]) -> Iterator[dict[str, Any] | None]:
    for line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        yield row if isinstance(row, dict) else None
