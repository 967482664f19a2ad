"""Rows of lists that are text: a URL a line, CSV, TSV, and JSON."""

import codecs
import gzip
import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

from curation import storage
from curation.errors import ConfigError
from curation.ingest.sources import ListFormat, UrlSource
from curation.ingest.tables.csv_records import Record, Records
from curation.ingest.tables.text_lines import MAX_LINE_BYTES, Lines, is_utf8, open_text, without_odd_bytes

_CHUNK_BYTES = 1 << 18
_MAGIC_BYTES = 6
_PACK = "Unpack it, or pack it by gzip and let its name end in .gz"
_PACKED = (
    (b"\x1f\x8b", "packed by gzip", "Let its name end in .gz"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd", _PACK),
    (b"\xfd7zXZ\0", "packed by xz", _PACK),
    (b"BZh", "packed by bzip2", _PACK),
    (b"PK\3\4", "a zip archive", _PACK),
    (b"PAR1", "parquet", "Set `format: parquet` in the source, or let its name end in .parquet"),
)
# What ends an element of an array, or shows that it does not end yet.
_MARKS = re.compile(r'\\.?|["\[\]{},]', re.DOTALL)
_WHITESPACE = " \t\r\n"
ODD_URL = "bytes that are no UTF-8, in what has the URL; save the list as UTF-8"


@dataclass(frozen=True, slots=True)
class ListRow:
    """One row of a list."""

    number: int  # from 0; of a line in a text, of a record in a table
    offset: int  # of its first byte, unpacked; 0 in a list that is read from its start
    url: str | None  # None: the row cannot be read
    values: Mapping[str, Any] = field(default_factory=dict)  # of the other columns
    fault: str | None = None  # why the row cannot be read
    has_odd_text: bool = False  # bytes that were not UTF-8 are replaced, in other columns than the URL's


class ListError(Exception):
    """A list that cannot be read on from some line."""


@contextmanager
def open_list(info: storage.FileInfo) -> Iterator[io.IOBase]:
    """Open a list, unpacked where its name ends in .gz, as the UTF-8 of `open_text`.

    Raises:
        ConfigError: when its first bytes are those of something packed, and its name says nothing of it.
        gzip.BadGzipFile: at the end, when something else follows the packed text.
    """
    with storage.open_stream(info.path) as stream:
        if not info.key.lower().endswith(".gz"):
            _require_text(stream.read(_MAGIC_BYTES), storage.redact(info.path))
            stream.seek(0)
            yield open_text(cast(io.IOBase, stream))
            return
        with gzip.open(stream, "rb") as unpacked:
            whole = _WholeMembers(unpacked)
            yield open_text(io.BufferedReader(whole, _CHUNK_BYTES))
            if whole.trailing is not None:
                raise whole.trailing


def _require_text(start: bytes, where: str) -> None:
    for magic, name, remedy in _PACKED:
        if start.startswith(magic):
            raise ConfigError(
                f"{where} is {name}, and its name does not say so",
                got=f"first bytes {magic!r}",
                expected="a text, or one packed by gzip whose name ends in .gz",
                remedy=remedy,
            )


class _WholeMembers(io.RawIOBase):
    """The text of a gzip file up to what follows its last member and is no gzip, which is told at the end."""

    def __init__(self, unpacked: gzip.GzipFile) -> None:
        self._unpacked = unpacked
        self.trailing: gzip.BadGzipFile | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.trailing = None
        return self._unpacked.seek(offset, whence)

    def tell(self) -> int:
        return self._unpacked.tell()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self.trailing is not None:
            return 0
        try:
            # `read1`, since `read` forgets what it has when the next member is none.
            data = self._unpacked.read1(len(buffer))
        except gzip.BadGzipFile as error:
            if not self._unpacked.tell() or "Not a gzipped file" not in str(error):
                raise
            self.trailing = gzip.BadGzipFile(f"behind the packed text, which was read: {error}")
            return 0
        buffer[: len(data)] = data
        return len(data)


def text_rows(
    stream: io.IOBase, kind: ListFormat, source: UrlSource, *, where: str, start: tuple[int, int]
) -> Iterator[ListRow | None]:
    """Stream the rows of a text list.

    Args:
        kind: its format, `parquet` apart.
        start: number and first byte of the row to begin with; (0, 0) is the start of the list.

    Returns:
        The rows; None for a line that is no row (blank, or a comment), whose number is passed over.

    Raises:
        ConfigError: when the list has not the columns that the source names.
        ListError: when what follows cannot be read.
    """
    match kind:
        case "csv" | "tsv":
            yield from _csv_rows(stream, "," if kind == "csv" else "\t", source, where=where, start=start)
        case "json" if _starts_with_array(stream):
            yield from _array_rows(stream, source, where=where, first=start[0])
        case "json" | "jsonl":
            yield from _json_lines(Lines(stream, start[1]), source, where=where, first=start[0])
        case _:
            lines = Lines(stream, start[1])
            number, offset = start
            for line in lines:
                yield _text_row(line.strip(_WHITESPACE), number, offset)
                number, offset = number + 1, lines.offset


def _text_row(text: str, number: int, offset: int) -> ListRow | None:
    if not text or text.startswith("#"):
        return None
    if is_utf8(text):
        return ListRow(number, offset, text)
    return ListRow(number, offset, None, fault=ODD_URL)


def _csv_rows(
    stream: io.IOBase, delimiter: str, source: UrlSource, *, where: str, start: tuple[int, int]
) -> Iterator[ListRow | None]:
    records = Records(Lines(stream), delimiter)
    names = next(records, None)
    if names is not None and names.fault is not None:
        raise ListError(f"the names of the columns, in the first line, cannot be read: {names.fault}")
    header = [name.strip(" ") for name in names.fields] if names is not None else []
    require_columns(header, source, where=where, remedy=_other_delimiter(header, delimiter))
    first_row, offset = start if start[1] else (0, records.offset)
    records = Records(Lines(stream, offset), delimiter, header=header, url=source.url)
    for number, record in enumerate(records, first_row):
        yield _record_row(record, header, source, number)


def _record_row(record: Record, header: list[str], source: UrlSource, number: int) -> ListRow | None:
    if not record.fields and record.fault is None:
        return None
    fault = record.fault
    if fault is None and len(record.fields) != len(header):
        fault = f"{len(record.fields)} fields, and {len(header)} columns"
    if fault is not None:
        return ListRow(number, record.offset, None, fault=fault)
    values = dict(zip(header, record.fields, strict=True))
    url = values.pop(source.url)
    if not is_utf8(url):
        return ListRow(number, record.offset, None, fault=ODD_URL)
    plain = {name: without_odd_bytes(value) for name, value in values.items()}
    return ListRow(number, record.offset, url, plain, has_odd_text=plain != values)


def _other_delimiter(header: list[str], delimiter: str) -> str:
    """What to do where a header is one field, in which another delimiter stands."""
    if len(header) != 1:
        return ""
    if "," in header[0] and delimiter == "\t":
        return "Its fields are apart by commas: set `format: csv` in the source"
    if "\t" in header[0]:
        return "Its fields are apart by tabs: set `format: tsv` in the source"
    if found := next((mark for mark in ";|" if mark in header[0]), None):
        return f"Its fields are apart by {found!r}: save it with commas, as CSV"
    return ""


def require_columns(names: list[str], source: UrlSource, *, where: str, remedy: str = "") -> None:
    """See that a table has the columns that its source names, each once.

    Raises:
        ConfigError: naming the columns that there are.
    """
    there = ", ".join(names[:50]) or "no columns"
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{where} has columns of one name", got=there, expected=f"{twice[0]!r} once")
    for name in (source.url, *([source.key] if source.key else []), *(source.columns or ())):
        if name not in names:
            raise ConfigError(
                f"{where} has no column {name!r}",
                got=there,
                expected="the column of the URLs as `url`, and those that `key` and `columns` name",
                remedy=remedy,
            )


def _json_lines(lines: Lines, source: UrlSource, *, where: str, first: int) -> Iterator[ListRow | None]:
    number, offset = first, lines.offset
    for line in lines:
        yield _json_row(line, source, (number, offset), where=where)
        number, offset = number + 1, lines.offset


def _json_row(line: str, source: UrlSource, place: tuple[int, int], *, where: str) -> ListRow | None:
    if not line.strip(_WHITESPACE):
        return None
    try:
        values = json.loads(line)
        plain = values if is_utf8(line) else json.loads(without_odd_bytes(line))
    except (ValueError, RecursionError) as error:
        return ListRow(*place, None, fault=f"no JSON: {error}")
    row = _object_row(plain, source, place, where=where)
    if plain is values or row.fault is not None:
        return row
    if row.url is not None and row.url != values[source.url]:
        return ListRow(*place, None, fault=ODD_URL)
    return replace(row, has_odd_text=True)


def _object_row(values: Any, source: UrlSource, place: tuple[int, int], *, where: str) -> ListRow:
    if not isinstance(values, dict):
        return ListRow(*place, None, fault="no JSON object")
    if place[0] == 0:  # a name that no object has would be a list of nothing but bad rows
        require_columns(list(values), source, where=where)
    url = values.pop(source.url, None)
    return ListRow(*place, url if isinstance(url, str) else None, values)


def _starts_with_array(stream: io.IOBase) -> bool:
    start: bytes = stream.read(1 << 10).lstrip()
    stream.seek(0)
    return start.startswith(b"[")


def _array_rows(stream: io.IOBase, source: UrlSource, *, where: str, first: int) -> Iterator[ListRow]:
    """The objects of arrays, one after another: an array has no rows to be found by their bytes."""
    for number, values in enumerate(_elements(stream)):
        if number < first:
            continue
        if isinstance(values, Exception):
            yield ListRow(number, 0, None, fault=f"no JSON: {values}")
        else:
            yield _object_row(values, source, (number, 0), where=where)


def _elements(stream: io.IOBase) -> Iterator[Any]:
    """The elements of an array, and of those behind it; an exception for one that is too long, or no JSON."""
    decoder = json.JSONDecoder()
    pieces = codecs.iterdecode(iter(lambda: stream.read(_CHUNK_BYTES), b""), "utf-8", "surrogateescape")
    text, at, number, is_inside = next(pieces, "").lstrip(), 0, 1, False
    while True:
        at = _skip(text, at)
        if at == len(text):
            text, at = next(pieces, ""), 0
            if not text and is_inside:
                raise ListError(f"element {number} of the array: the list ends before the array does")
            if not text:
                return
        elif text[at] == ("]" if is_inside else "["):
            at, is_inside = at + 1, not is_inside
        elif not is_inside:
            raise ListError(f"behind {number - 1} elements: what follows the array is no other")
        else:
            value, text, at = _next_element(decoder, text, at, pieces, number=number)
            yield value
            number += 1


def _next_element(
    decoder: json.JSONDecoder, text: str, at: int, pieces: Iterator[str], *, number: int
) -> tuple[Any, str, int]:
    """The element that begins at `at`, the text in which the next one lies, and where it may begin."""
    while True:
        try:
            value, end = decoder.raw_decode(text, at)
            return value, text, end
        except (ValueError, RecursionError) as error:
            if (stop := _Scan().end_in(text, at)) is not None:
                return error, text, stop
            if len(text) - at > MAX_LINE_BYTES:
                return _pass_over(text, at, pieces, number=number)
            more = next(pieces, "")
            if not more:
                raise ListError(f"element {number} of the array: {error}") from error
            text, at = text[at:] + more, 0


def _pass_over(text: str, at: int, pieces: Iterator[str], *, number: int) -> tuple[ValueError, str, int]:
    """An element that is too long, in place of which there is an error, and what follows it."""
    scan = _Scan()
    while (stop := scan.end_in(text, at)) is None:
        text, at = next(pieces, ""), 0
        if not text:
            raise ListError(
                f"element {number} of the array: more than {MAX_LINE_BYTES} bytes, without an end"
            )
    return ValueError(f"more than {MAX_LINE_BYTES} bytes"), text, stop


class _Scan:
    """Looks for the end of an element that cannot be decoded, piece by piece of the text."""

    def __init__(self) -> None:
        self._depth, self._is_quoted, self._is_escaped = 0, False, False

    def end_in(self, text: str, at: int) -> int | None:
        """Where the comma, or the end of the array, behind the element stands; None: not in this piece."""
        start, self._is_escaped = at + self._is_escaped, False
        for match in _MARKS.finditer(text, start):
            mark = match[0]
            if mark[0] == "\\":
                self._is_escaped = len(mark) == 1
            elif mark == '"':
                self._is_quoted = not self._is_quoted
            elif self._is_quoted:
                continue
            elif mark in "[{":
                self._depth += 1
            elif not self._depth and mark in ",]":
                return match.start()
            elif mark in "]}":
                self._depth = max(0, self._depth - 1)
        return None


def _skip(text: str, at: int) -> int:
    """Where the next element may start: behind whitespace and commas."""
    while at < len(text) and text[at] in " \t\r\n,":
        at += 1
    return at
