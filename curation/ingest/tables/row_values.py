"""Values of a table's cells as Python has them, and a row of them as the json beside an image.

One odd value costs no more than itself: text that is not UTF-8 keeps its bytes, and what has no form in
Python or JSON costs its row the json.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from curation.ingest.problems import Findings, Problem
from curation.ingest.rows import as_text
from curation.ingest.tables.column_types import has_free_bytes
from curation.printed import redact_value

# A year 300,000, nanoseconds, a time zone of no name, nesting without end: Python has no value for them.
_NO_VALUE = (ValueError, ArithmeticError, LookupError, RecursionError, pa.ArrowException)
# Deeper values are left out: at a fixed depth, so that all workers decide alike, whatever their stacks hold.
_MAX_DEPTH = 64
# A longer name of a row is none: every row's is held while a unit is staged.
MAX_NAME_CHARS = 1024


def read_values(column: pa.Array) -> list[Any]:
    """The values of a column; what stands in it once, and is pointed at often, is made once.

    Text that is not UTF-8 has lone surrogates for its odd bytes; what Python has no value for is given as the
    error that says so. Bytes of any length that are UTF-8 are text: many writers of parquet do not say so.
    """
    try:
        values = _shared_values(column) if _has_dictionary(column.type) else column.to_pylist()
    except _NO_VALUE:
        values = [_read_value(item) for item in column]
    return [_with_text(value) for value in values] if has_free_bytes(column.type) else values


def _with_text(value: Any) -> Any:
    """The value, its bytes as text where they are UTF-8 without zeros, as which masks may pass."""
    match value:
        case bytes():
            try:
                return value if b"\0" in value else value.decode()
            except UnicodeDecodeError:
                return value
        case list() | tuple():
            return type(value)(map(_with_text, value))
        case dict():
            return {name: _with_text(item) for name, item in value.items()}
        case _:
            return value


def holds_bytes(value: Any) -> bool:
    """Whether there are bytes in a value that JSON will not have."""
    match value:
        case list() | tuple():
            return any(map(holds_bytes, value))
        case dict():
            return any(map(holds_bytes, value.values()))
        case _:
            return isinstance(value, bytes)


def no_text_note(path: str, column: str) -> Problem:
    """That a source's column holds bytes that are left out: the same, and so one note, for all its files."""
    detail = f"column {column!r} holds bytes that are no text, such as other images: left out of the json"
    return Problem(path, "no_text", detail)


def _has_dictionary(kind: pa.DataType) -> bool:
    return pt.is_dictionary(kind) or any(_has_dictionary(kind.field(i).type) for i in range(kind.num_fields))


def _shared_values(column: pa.Array) -> list[Any]:
    """The values of a column, each entry of a dictionary one object: a text may be that of a million rows."""
    match column:
        case pa.DictionaryArray():
            words = read_values(column.dictionary)
            return [None if i is None else words[i] for i in column.indices.to_pylist()]
        case pa.MapArray():
            pairs = [_shared_values(cell.values) if cell.is_valid else None for cell in column]
            return [pair and [tuple(entry.values()) for entry in pair] for pair in pairs]
        case pa.ListArray() | pa.LargeListArray() | pa.FixedSizeListArray():
            return [_shared_values(cell.values) if cell.is_valid else None for cell in column]
        case pa.StructArray():
            names = [field.name for field in column.type]
            rows = zip(*map(_shared_values, column.flatten()), strict=True)
            valid = column.is_valid().to_pylist()
            return [
                dict(zip(names, row, strict=True)) if v else None for row, v in zip(rows, valid, strict=True)
            ]
        case _:
            return read_values(column) if not _has_dictionary(column.type) else column.to_pylist()


def _read_value(item: pa.Scalar) -> Any:
    try:
        return item.as_py()
    except _NO_VALUE as error:
        text = item.value if pt.is_dictionary(item.type) else item
        if isinstance(text, pa.StringScalar | pa.LargeStringScalar | pa.StringViewScalar):
            return text.as_buffer().to_pybytes().decode("utf-8", "surrogateescape")
        if isinstance(item, pa.TimestampScalar) and item.type.tz not in (None, "UTC"):
            # A time zone that this machine does not know: the moment is stored in UTC whatever the zone.
            return _read_value(item.cast(pa.timestamp(item.type.unit, "UTC")))
        return error


def name_of(value: Any, row: int, *, place: str, findings: Findings) -> str:
    """What a key column's value names its row; the row's number where it names none.

    Args:
        value: of the column; bytes are named by their hexadecimal digits.
    """
    if has_no_name(value):
        return f"{row:08d}"
    if isinstance(value, bytes):  # a digest
        value = value[:MAX_NAME_CHARS].hex()
    try:
        _Plain(MAX_NAME_CHARS).of(value, 0)
        name = redact_value(as_text(str(value)))
    except (RecursionError, ValueError):
        return f"{row:08d}"
    except _TooLongError:
        name = None
    if name is not None and len(name) <= MAX_NAME_CHARS:
        return name
    detail = f"row {row}: a key of more than {MAX_NAME_CHARS} characters; its number stands for it"
    findings.note(Problem(place, "long_key", detail))
    return f"{row:08d}"


def has_no_name(value: Any) -> bool:
    """Whether a key column's value is none."""
    return value is None or value == "" or isinstance(value, Exception)


def row_sidecars(
    values: Mapping[str, Any] | None, place: tuple[str, str], *, max_bytes: int, findings: Findings
) -> dict[str, bytes]:
    """A row's values as the json that accompanies its image; nothing where there are none.

    Args:
        values: by the names of their columns; None: of a row that is to have no json.
        place: the file, and where in it the row stands, for the note that its json is left out.
    """
    if values is None:
        return {}
    path, where = place
    try:
        data = encode_row(values, max_bytes=max_bytes)
    except _TooLongError:
        detail = f"{where}: more than {max_bytes} bytes of json are left out"
        findings.note(Problem(path, "long_sidecar", detail))
        return {}
    except (*_NO_VALUE, TypeError) as error:
        detail = f"{where}: json is left out: {as_text(' '.join(str(error).split())[:200])}"
        findings.note(Problem(path, "odd_sidecar", detail))
        return {}
    return {"json": data}


class _TooLongError(Exception):
    """A row comes to more bytes than a sidecar may have."""


def encode_row(values: Mapping[str, Any], *, max_bytes: int) -> bytes:
    """A row as JSON in UTF-8; what JSON has no form for becomes Python's text of it.

    A value that is one URL loses the credentials that it carries: the json travels with the dataset.

    Raises:
        ValueError: when values are nested without measure.
        Exception: that `read_values` gave for a value, or that the JSON is longer than `max_bytes`.
    """
    plain = _Plain(max_bytes).of(values, 0)
    try:
        data = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), default=str).encode()
    except UnicodeEncodeError:  # half a character, which JSON can escape and UTF-8 does not have
        data = json.dumps(plain, separators=(",", ":"), default=str).encode()
    if len(data) > max_bytes:
        raise _TooLongError
    return data


class _Plain:
    """Makes values plain, and counts how long their JSON is at least before it is made."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes

    def of(self, value: Any, depth: int) -> Any:
        self._left -= len(value) if isinstance(value, str) else 1
        if self._left < 0:
            raise _TooLongError
        if depth > _MAX_DEPTH:
            raise ValueError(f"values are nested more than {_MAX_DEPTH} deep")
        match value:
            case dict():
                plain = {redact_value(str(name)): self.of(item, depth + 1) for name, item in value.items()}
                if len(plain) < len(value):
                    raise ValueError("two names are one without the credentials in them")
                return plain
            case list() | tuple():
                return [self.of(item, depth + 1) for item in value]
            case _:
                return _plain(value)


def _plain(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case bytes():
            return None
        case Exception():
            raise value
        case str():
            return redact_value(value)
        case _:
            return value
