"""Rows of lists that are text: a URL a line, CSV, TSV, and JSON."""

import codecs
import gzip
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

from curation import storage
from curation.errors import ConfigError
from curation.ingest.csv_records import Record, Records
from curation.ingest.text_lines import MAX_LINE_BYTES, Lines, is_utf8, open_text, without_odd_bytes
from curation.ingest.web.url_source import ListFormat, UrlSource

_CHUNK_BYTES = 1 << 18
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
    """Open a list, unpacked where its name ends in .gz, as the UTF-8 of `open_text`."""
    with storage.open_stream(info.path) as stream:
        if not info.key.lower().endswith(".gz"):
            yield open_text(cast(io.IOBase, stream))
            return
        with gzip.open(stream, "rb") as unpacked:
            yield open_text(unpacked)


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
    header = names.fields if names is not None else []
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

    Args:
        names: of the columns.
        source: what names them.
        where: the table, for the message.
        remedy: what to do where one is not there, if that is known.

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
    start = stream.read(1 << 10).lstrip()
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
    text, at, num_elements = next(pieces, "").lstrip()[1:], 0, 0
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
