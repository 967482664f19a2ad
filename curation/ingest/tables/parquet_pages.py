"""Parquet files whose pages are looked at before they are read: a page of kilobytes may claim gigabytes.

A page is decompressed as a whole. How large it then is stands in its header, which is small and can be read
by itself; the footer has the sums of a chunk, and need not be true.

Source: Apache Parquet, `parquet.thrift`, PageHeader; Apache Thrift, "Compact Protocol".
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.ingest.tables.inflation import is_bomb, refuse_bomb

_HEADER_BYTES = 512  # that are read of a page at first: more where its statistics are long
_MAX_HEADER_BYTES = 16 << 20
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_COUNTS = {_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}  # the field with the number of values
_VALUE_BYTES = 8  # of a value in a list, once it is read
_LENGTH_BYTES = 4  # of a value's length, which some encodings unpack for the whole page
# In the lists of one row group, where they take hardly any bytes: they may all be those of one row.
_MAX_LIST_VALUES = 1 << 28


class CheckedParquet(pq.ParquetFile):  # type: ignore[misc]  # Arrow has no types
    """A parquet file that reads no row group whose pages, or lists, inflate without measure.

    Args:
        stream: of the file: a binary file that seeks.
        looks_always: whether the pages of every chunk are looked at, and not only of those whose sums are
            striking; each is a small read of its own.
    """

    def __init__(self, stream: Any, *, looks_always: bool, **settings: Any) -> None:
        super().__init__(stream, **settings)
        self._stream, self._looks_always = stream, looks_always

    def iter_batches(
        self,
        batch_size: int = 65_536,
        row_groups: Sequence[int] | None = None,
        columns: Sequence[str] | None = None,
        **settings: Any,
    ) -> Iterator[pa.RecordBatch]:
        """Stream batches; none reaches over the end of a row group.

        Raises:
            InflatesError: where a row group comes to far more than is stored.
            pa.ArrowException: when it is damaged.
        """
        for number in range(self.metadata.num_row_groups) if row_groups is None else row_groups:
            self._check(number, columns)
            yield from super().iter_batches(batch_size, [number], columns, **settings)

    def _check(self, number: int, columns: Sequence[str] | None) -> None:
        group = self.metadata.row_group(number)
        stored = plain = 0
        for place in range(group.num_columns):
            chunk = group.column(place)
            path = chunk.path_in_schema
            if columns is not None and not any(path == c or path.startswith(f"{c}.") for c in columns):
                continue
            in_lists = self.schema.column(place).max_repetition_level > 0
            if in_lists:
                _check_lists(chunk, group.num_rows)
            sums = {"stored": chunk.total_compressed_size, "plain": chunk.total_uncompressed_size}
            if self._looks_always or is_bomb(**sums):
                largest = _largest(self._stream, chunk, in_lists=in_lists)
                stored, plain = stored + largest[0], plain + largest[1]
        refuse_bomb(f"a page of each column of row group {number}", stored=stored, plain=plain)


def _check_lists(chunk: Any, num_rows: int) -> None:
    """Repeated values take no bytes, and a row is read as a whole."""
    stored, num_values = chunk.total_compressed_size, chunk.num_values
    what = f"a list of column {chunk.path_in_schema!r}: a chunk with {num_values} values"
    refuse_bomb(what, stored=stored, plain=num_values // max(num_rows, 1) * _VALUE_BYTES)
    if num_values > _MAX_LIST_VALUES:
        refuse_bomb(what, stored=stored, plain=num_values * _VALUE_BYTES)


@dataclass(frozen=True, slots=True)
class _Page:
    kind: int
    stored: int
    plain: int
    num_values: int


def _largest(stream: Any, chunk: Any, *, in_lists: bool) -> tuple[int, int]:
    """The bytes, stored and plain, of what is held of a chunk at once: its dictionary, and one page."""
    dictionary, largest = (0, 0), (0, 0)
    for page in _pages(stream, chunk):
        plain = page.plain if in_lists else max(page.plain, page.num_values * _LENGTH_BYTES)
        if page.kind == _DICTIONARY:
            dictionary = dictionary[0] + page.stored, dictionary[1] + plain
        elif plain > largest[1]:
            largest = page.stored, plain
    return dictionary[0] + largest[0], dictionary[1] + largest[1]


def _pages(stream: Any, chunk: Any) -> Iterator[_Page]:
    """The pages that Arrow would read: until there are as many values as the footer says."""
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    end, seen = start + chunk.total_compressed_size, 0
    while start < end and seen < chunk.num_values:
        page, header_bytes = _page_at(stream, start)
        yield page
        seen += page.num_values if page.kind != _DICTIONARY else 0
        start += header_bytes + page.stored


def _page_at(stream: Any, offset: int) -> tuple[_Page, int]:
    num_bytes = _HEADER_BYTES
    while True:
        stream.seek(offset)
        data = stream.read(num_bytes)
        try:
            fields, end = _read_struct(data, 0)
            break
        except IndexError as error:
            if len(data) < num_bytes or num_bytes >= _MAX_HEADER_BYTES:
                raise pa.ArrowInvalid(f"a page header at byte {offset} is damaged") from error
            num_bytes *= 8
        except (ValueError, RecursionError) as error:
            raise pa.ArrowInvalid(f"a page header at byte {offset} is damaged: {error}") from error
    kind, plain, stored = (fields.get(number, -1) for number in (1, 2, 3))
    counts = fields.get(_COUNTS.get(kind, 0), {}) if isinstance(kind, int) else {}
    num_values = counts.get(1, 0) if isinstance(counts, dict) else 0
    if not all(isinstance(n, int) and n >= 0 for n in (kind, plain, stored, num_values)):
        raise pa.ArrowInvalid(f"a page header at byte {offset} is damaged")
    return _Page(kind, stored, plain, num_values), end


def _read_struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """The fields of a struct by their numbers, and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while data[at]:
        delta, kind = data[at] >> 4, data[at] & 15
        at += 1
        if delta:
            number += delta
        else:
            number, at = _read_integer(data, at)
        fields[number], at = _read_value(data, at, kind)
    return fields, at + 1


def _read_value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    match kind:
        case 1 | 2:
            return kind == 1, at
        case 3:
            return data[at], at + 1
        case 4 | 5 | 6:
            return _read_integer(data, at)
        case 8:
            num_bytes, at = _read_varint(data, at)
            data[at + num_bytes]  # there is more behind it
            return None, at + num_bytes
        case 12:
            return _read_struct(data, at)
        case _:
            raise ValueError(f"a value of type {kind}")


def _read_integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _read_varint(data, at)
    return value >> 1 ^ -(value & 1), at


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] & 128:
        value, shift, at = value | (data[at] & 127) << shift, shift + 7, at + 1
        if shift > 63:
            raise ValueError("a number without end")
    return value | data[at] << shift, at + 1
