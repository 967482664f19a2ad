"""Rows of lists that are text: a URL a line, CSV, TSV, and JSON."""

import codecs
import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from curation import storage
from curation.errors import ConfigError
from curation.ingest.web.url_source import ListFormat, UrlSource

# A longer line is cut there, and is no URL any more. Fields of a CSV end at 131,072 characters.
MAX_LINE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 18
_WHITESPACE = " \t\r\n"


@dataclass(frozen=True, slots=True)
class ListRow:
    """One row of a list."""

    number: int  # from 0; of a line in a text, of a record in a table
    offset: int  # of its first byte, unpacked; 0 in a list that is read from its start
    url: str | None  # None: the row cannot be read
    values: Mapping[str, Any] = field(default_factory=dict)  # of the other columns


class ListError(Exception):
    """A list that cannot be read on from some line."""


@contextmanager
def open_list(info: storage.FileInfo) -> Iterator[io.IOBase]:
    """Open a list for one pass from its start, unpacked where its name ends in .gz."""
    with storage.open_stream(info.path) as stream:
        if not info.key.lower().endswith(".gz"):
            yield cast(io.IOBase, stream)
            return
        with gzip.open(stream, "rb") as unpacked:
            yield unpacked


class Lines:
    """The lines of a list from some byte on, as text, and the byte at which the next one starts.

    Bytes that are not UTF-8 become lone surrogates, so that the row that has them can be told.
    """

    def __init__(self, stream: io.IOBase, offset: int = 0) -> None:
        self.offset = offset
        self.number = 0  # lines given
        self._stream = stream
        stream.seek(offset)

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        line = self._stream.readline(MAX_LINE_BYTES)
        if not line:
            raise StopIteration
        is_first = self.offset == 0
        self.offset += len(line)
        self.number += 1
        rest = line
        while rest and not rest.endswith(b"\n") and (rest := self._stream.readline(MAX_LINE_BYTES)):
            self.offset += len(rest)
        if is_first:
            line = line.removeprefix(b"\xef\xbb\xbf")
        return line.decode("utf-8", "surrogateescape")


def is_utf8(text: str) -> bool:
    """Whether a text from `Lines` has no bytes that were not UTF-8."""
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def text_rows(
    stream: io.IOBase, kind: ListFormat, source: UrlSource, *, where: str, start: tuple[int, int]
) -> Iterator[ListRow | None]:
    """Stream the rows of a text list.

    Args:
        stream: of `open_list`.
        kind: its format, `parquet` apart.
        source: what it belongs to.
        where: its name, for messages.
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
    return ListRow(number, offset, text if is_utf8(text) else None)


def _csv_rows(
    stream: io.IOBase, delimiter: str, source: UrlSource, *, where: str, start: tuple[int, int]
) -> Iterator[ListRow | None]:
    lines = Lines(stream)
    number, offset = 0, 0
    try:
        header = next(csv.reader(lines, delimiter=delimiter, strict=True), [])
        require_columns(header, source, where=where)
        number, offset = start if start[1] else (0, lines.offset)
        lines = Lines(stream, offset)
        for record in csv.reader(lines, delimiter=delimiter, strict=True):
            yield _record_row(record, header, source, (number, offset))
            number, offset = number + 1, lines.offset
    except csv.Error as error:
        line = _line_at(stream, offset)
        raise ListError(f"line {line}: {error}; this record and what follows it were not read") from error


def _line_at(stream: io.IOBase, offset: int) -> int:
    """The number, from 1, of the line that starts at a byte."""
    stream.seek(0)
    line, left = 1, offset
    while left and (block := stream.read(min(left, MAX_LINE_BYTES))):
        line, left = line + block.count(b"\n"), left - len(block)
    return line


def _record_row(
    record: list[str], header: list[str], source: UrlSource, place: tuple[int, int]
) -> ListRow | None:
    if not record:
        return None
    values = dict(zip(header, record, strict=False))
    if len(record) != len(header) or not all(map(is_utf8, record)):
        return ListRow(*place, None)
    return ListRow(*place, values.pop(source.url), values)


def require_columns(names: list[str], source: UrlSource, *, where: str) -> None:
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
        values = json.loads(line) if is_utf8(line) else None
    except (ValueError, RecursionError):
        values = None
    return _object_row(values, source, place, where=where)


def _object_row(values: Any, source: UrlSource, place: tuple[int, int], *, where: str) -> ListRow:
    if not isinstance(values, dict):
        return ListRow(*place, None)
    if place[0] == 0:  # a name that no object has would be a list of nothing but bad rows
        require_columns(list(values), source, where=where)
    url = values.pop(source.url, None)
    return ListRow(*place, url if isinstance(url, str) else None, values)


def _starts_with_array(stream: io.IOBase) -> bool:
    start = stream.read(1 << 10).removeprefix(b"\xef\xbb\xbf").lstrip()
    stream.seek(0)
    return start.startswith(b"[")


def _array_rows(stream: io.IOBase, source: UrlSource, *, where: str, first: int) -> Iterator[ListRow]:
    """The objects of one array, one after another: an array has no rows to be found by their bytes."""
    for number, values in enumerate(_elements(stream)):
        if number >= first:
            yield _object_row(values, source, (number, 0), where=where)


def _elements(stream: io.IOBase) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    pieces = codecs.iterdecode(iter(lambda: stream.read(_CHUNK_BYTES), b""), "utf-8", "surrogateescape")
    text, at, num_elements = next(pieces, "").removeprefix("\ufeff").lstrip()[1:], 0, 0
    while True:
        at = _skip(text, at)
        if text.startswith("]", at):
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            more = next(pieces, "")
            if not more or len(text) - at > MAX_LINE_BYTES:
                raise ListError(f"element {num_elements + 1} of the array: {error}") from error
            text, at = text[at:] + more, 0
        else:
            yield value
            num_elements += 1


def _skip(text: str, at: int) -> int:
    """Where the next element may start: behind whitespace and commas."""
    while at < len(text) and text[at] in " \t\r\n,":
        at += 1
    return at
