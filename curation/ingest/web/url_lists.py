"""A list of URLs, of whatever format, as a stream of rows; and where it is cut into units."""

import gzip
import zlib
from collections.abc import Generator, Iterator
from typing import cast, get_args

import pyarrow as pa
import pyarrow.types as pt

from curation import storage
from curation.errors import ConfigError
from curation.ingest.problems import Findings, Problem, Tally
from curation.ingest.sources import LIST_SUFFIXES, ListFormat, UrlSource
from curation.ingest.tables.column_types import holds_pictures, is_free_bytes, is_text
from curation.ingest.tables.inflation import InflatesError
from curation.ingest.tables.parquet_images import BATCH_ROWS, open_parquet
from curation.ingest.tables.row_values import holds_bytes, no_text_note, read_values
from curation.ingest.tables.table_images import READING_ERRORS, empty_note
from curation.ingest.tables.text_lines import is_utf8
from curation.ingest.web.text_lists import (
    ODD_URL,
    ListError,
    ListRow,
    open_list,
    require_columns,
    text_rows,
)


def format_of(key: str, source: UrlSource) -> ListFormat:
    """The format of a list, as the source says or its name does.

    Raises:
        ConfigError: when neither does.
    """
    if source.format is not None:
        return source.format
    name = key.lower().removesuffix(".gz").rpartition(".")[2]
    if name not in (*get_args(ListFormat), "pq"):
        raise ConfigError(
            f"The format of a list of URLs cannot be told: {key}",
            got=f"a name that ends in .{name}",
            expected=" or ".join(LIST_SUFFIXES),
            remedy="Set `format` in the source",
        )
    return "parquet" if name == "pq" else cast(ListFormat, name)


def list_rows(
    info: storage.FileInfo, source: UrlSource, *, start: tuple[int, int] = (0, 0), findings: Findings
) -> Generator[ListRow, None, None]:
    """Stream the rows of a list from one of them on.

    A row that cannot be read (a URL that is not UTF-8, a bad quote, too few or too many fields, no JSON) has
    no URL; such rows are counted in a note, with what is wrong with the first.
    Bytes of other columns of a text that are not UTF-8 are replaced, and their rows counted in a note.
    Blank lines, and lines of a `.txt` that start with `#`, are no rows; they are counted in a note.

    Args:
        start: number and first byte of the row to begin with, as `cut_list` gave them.
        findings: what stops the reading is added here; the rows before it have come.

    Raises:
        ConfigError: when the list has not the columns that the source names.
    """
    has_rows, passed, bad, odd, no_text = False, Tally(), Tally(), Tally(), set[str]()
    try:
        for row in _any_rows(info, source, start, no_text=no_text):
            if row is None:
                passed.add()
                continue
            has_rows = True
            if row.fault is not None:
                bad.add(f"row {row.number}: {row.fault}")
            elif row.has_odd_text:
                odd.add(f"row {row.number}")
            yield row
        if not has_rows and not start[0]:
            findings.notes.append(empty_note(info.path))
    except (ListError, *READING_ERRORS, EOFError, zlib.error) as error:
        findings.problems.append(_problem(info, error))
    finally:
        findings.notes.extend(no_text_note(source.path, name) for name in sorted(no_text))
        findings.notes.extend(_notes(info.path, passed, bad, odd))


def _notes(path: str, passed: Tally, bad: Tally, odd: Tally) -> Iterator[Problem]:
    if passed.num:
        yield Problem(path, "no_rows", f"{passed.num} lines are blank or comments")
    if bad.num:
        yield Problem(path, "bad_rows", f"{bad.num} rows cannot be read, the first of them {bad.first}")
    if odd.num:
        detail = f"{odd.num} rows, the first of them {odd.first}, have bytes that are no UTF-8"
        yield Problem(path, "odd_text", f"{detail}, replaced by \ufffd; save the list as UTF-8")


def _any_rows(
    info: storage.FileInfo, source: UrlSource, start: tuple[int, int], *, no_text: set[str]
) -> Iterator[ListRow | None]:
    """The rows; columns with bytes that are left out are added to `no_text`."""
    kind, where = format_of(info.key, source), storage.redact(info.path)
    if kind == "parquet":
        yield from _parquet_rows(info, source, where=where, first=start[0], no_text=no_text)
        return
    with open_list(info) as stream:
        yield from text_rows(stream, kind, source, where=where, start=start)


def _problem(info: storage.FileInfo, error: Exception) -> Problem:
    text = " ".join(str(error).split())[:300]
    match error:
        case _ if info.num_bytes == 0:
            return Problem(info.path, "empty_file", "the file has zero bytes", 0)
        case ListError():
            return Problem(info.path, "bad_list", text)
        case EOFError():
            return Problem(info.path, "truncated", text)
        case gzip.BadGzipFile() | zlib.error():
            return Problem(info.path, "corrupt", text)
        case pa.ArrowException() if "magic bytes" in text or "footer" in text:
            return Problem(info.path, "not_parquet", text)
        case InflatesError():
            return Problem(info.path, "unpacks_too_large", text)
        case pa.ArrowException() | UnicodeDecodeError() | RecursionError():
            return Problem(info.path, "corrupt", text)
        case OSError() if error.errno is None and storage.is_local(info.path):  # of Arrow, about the data
            return Problem(info.path, "corrupt", text)
    return Problem(info.path, "unreadable", text)


def _parquet_rows(
    info: storage.FileInfo, source: UrlSource, *, where: str, first: int, no_text: set[str]
) -> Iterator[ListRow]:
    with open_parquet(info.path) as file:
        schema = file.schema_arrow
        require_columns(schema.names, source, where=where)
        if not _may_be_urls(schema.field(source.url).type):
            raise ConfigError(
                f"{where}: the column {source.url!r} holds no text",
                got=schema.field(source.url).type,
                expected="strings",
                remedy="Name the column of the URLs in the source: url: COLUMN",
            )
        asked = {source.url, source.key, *(source.columns or ())}
        pictures = {f.name for f in schema if holds_pictures(f.type)} - asked
        no_text |= pictures
        columns = [name for name in schema.names if name not in pictures]
        start = 0
        for group in range(file.num_row_groups):
            num_rows = file.metadata.row_group(group).num_rows
            if start + num_rows > first:
                batches = file.iter_batches(
                    BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False
                )
                yield from _batch_rows(batches, source, start=start, first=first, no_text=no_text)
            start += num_rows


def _batch_rows(
    batches: Iterator[pa.RecordBatch], source: UrlSource, *, start: int, first: int, no_text: set[str]
) -> Iterator[ListRow]:
    """The rows from number `first` on; the first of all batches has the number `start`."""
    for batch in batches:
        skipped = max(0, first - start)
        columns = [read_values(column) for column in batch.slice(skipped).columns]
        for number, items in enumerate(zip(*columns, strict=True), start + skipped):
            values = dict(zip(batch.schema.names, items, strict=True))
            url = values.pop(source.url) or ""
            odd = {name for name, value in values.items() if holds_bytes(value)} - {source.key}
            no_text |= odd
            for name in odd - set(source.columns or ()):
                if isinstance(values[name], bytes):
                    del values[name]
            if isinstance(url, str) and is_utf8(url):
                yield ListRow(number, 0, url, values)
            else:
                yield ListRow(number, 0, None, values, ODD_URL)
        start += len(batch)


def _may_be_urls(kind: pa.DataType) -> bool:
    if pt.is_dictionary(kind):
        return _may_be_urls(kind.value_type)
    return is_text(kind) or is_free_bytes(kind) or pt.is_null(kind)


def cut_list(info: storage.FileInfo, source: UrlSource) -> list[tuple[int, int | None, int]]:
    """Cut a list into runs of `unit_rows` rows.

    Returns:
        First row, the row before which the run ends, and first byte of each; the last runs to the end, or to
        what cannot be read, which is found again, and named, when that run is read.

    Raises:
        ConfigError: when the list has not the columns that the source names.
    """
    cuts: list[tuple[int, int]] = []
    for position, row in enumerate(list_rows(info, source, findings=Findings())):
        if position % source.unit_rows == 0:
            cuts.append((row.number, row.offset))
    stops = [*(first for first, _ in cuts[1:]), None]
    # The first run starts at the first byte: what precedes its first row is passed over, and counted.
    return [
        (first if i else 0, stop, offset if i else 0)
        for i, ((first, offset), stop) in enumerate(zip(cuts or [(0, 0)], stops, strict=True))
    ]
