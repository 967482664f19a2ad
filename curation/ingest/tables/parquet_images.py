"""Parquet files with a column of image bytes, read row group by row group."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from curation import storage
from curation.ingest.problems import Findings, Problem
from curation.ingest.sources import TableSource
from curation.ingest.staging import StagedImage
from curation.ingest.tables.parquet_pages import CheckedParquet
from curation.ingest.tables.table_images import (
    READING_ERRORS,
    Columns,
    TableRows,
    choose_columns,
    empty_note,
    reading_problem,
)

# Of what is read as Python's values: one long text may be that of every row, and is as large in each.
BATCH_ROWS = 16
_BUFFER_BYTES = 8 << 20  # that a column's chunk is read by: the memory of a wide row group does not matter


@contextmanager
def open_parquet(path: str) -> Iterator[CheckedParquet]:
    """Open a parquet file for streaming.

    Raises:
        pa.ArrowException: when it is none.
        OSError: when it cannot be read.
    """
    # A store is asked for single headers of pages only where there is cause.
    looks_always = storage.is_local(path)
    with storage.open_seekable(path) as stream:
        with CheckedParquet(stream, looks_always=looks_always, buffer_size=_BUFFER_BYTES) as file:
            texts = _texts_in_lists(file)
            if not texts:
                yield file
                return
        with CheckedParquet(
            stream,
            looks_always=looks_always,
            metadata=file.metadata,
            buffer_size=_BUFFER_BYTES,
            read_dictionary=texts,
        ) as file:
            yield file


def _texts_in_lists(file: pq.ParquetFile) -> list[str]:
    """Columns of text within lists: one row may point at one long text a million times."""
    leaves = [file.schema.column(i) for i in range(len(file.schema.names))]
    return [
        leaf.path for leaf in leaves if leaf.max_repetition_level > 0 and leaf.physical_type == "BYTE_ARRAY"
    ]


def cut_parquet(info: storage.FileInfo, unit_bytes: int) -> list[tuple[int, int | None]]:
    """Cut a file at its row groups into ranges of rows of about `unit_bytes` (compressed) each.

    A file that cannot be opened is one range: reading it will say what is wrong.
    """
    try:
        with open_parquet(info.path) as file:
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            sizes = [
                (g.num_rows, sum(g.column(c).total_compressed_size for c in range(g.num_columns)))
                for g in groups
            ]
    except READING_ERRORS:
        return [(0, None)]
    cuts: list[tuple[int, int | None]] = []
    first = row = held = 0
    for num_rows, num_bytes in sizes:
        if held and held + num_bytes > unit_bytes:
            cuts.append((first, row))
            first, held = row, 0
        row, held = row + num_rows, held + num_bytes
    return [*cuts, (first, row)]


def parquet_images(
    info: storage.FileInfo, source: TableSource, *, first: int, stop: int | None, findings: Findings
) -> Iterator[StagedImage]:
    """Stream some rows of a file.

    Args:
        first, stop: rows, cut where row groups begin; `stop` None: to the end.

    Raises:
        ConfigError: when the columns are not those that the source names.
    """
    row = first
    try:
        with open_parquet(info.path) as file:
            total = file.metadata.num_rows
            if not total:
                findings.notes.append(empty_note(info.path))
            stop = total if stop is None else min(stop, total)
            if first >= stop:
                return
            columns = choose_columns(file.schema_arrow, source, info)
            table = TableRows(info, source, columns, findings)
            table.pass_over(_keys_before(file, columns, first))
            for batch in _batches(file, columns, first, stop):
                yield from table.images(batch, row)
                row += len(batch)
            table.end()
    except READING_ERRORS as error:
        findings.problems.append(_problem(info, error, row))


def _problem(info: storage.FileInfo, error: Exception, row: int) -> Problem:
    if info.num_bytes == 0:
        return Problem(info.path, "empty_file", "the file has zero bytes", 0)
    text = " ".join(str(error).split())[:300]
    if "magic bytes not found" in text or "footer" in text:
        return Problem(info.path, "not_parquet", text)
    return reading_problem(info, error, row)


def _keys_before(file: pq.ParquetFile, columns: Columns, first: int) -> Iterator[pa.RecordBatch]:
    """The key column of the row groups before row `first`."""
    row = 0
    for number in range(file.metadata.num_row_groups):
        if columns.key is None or row >= first:
            return
        yield from file.iter_batches(
            BATCH_ROWS, row_groups=[number], columns=[columns.key], use_threads=False
        )
        row += file.metadata.row_group(number).num_rows


def _batches(file: pq.ParquetFile, columns: Columns, first: int, stop: int) -> Iterator[pa.RecordBatch]:
    """The row groups from `first` to `stop`, row by row.

    What a footer says of sizes bounds nothing: one large value of a dictionary may be that of every row, and
    is as large in each. A row costs 50 µs more than in batches of 1024.
    """
    start = 0
    for number in range(file.metadata.num_row_groups):
        num_rows = file.metadata.row_group(number).num_rows
        if first <= start < stop and num_rows:
            yield from file.iter_batches(1, [number], columns.names, use_threads=False)
        start += num_rows
