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

# A year 300,000, nanoseconds, a time zone of no name, nesting without end: Python has no value for them.
_NO_VALUE = (ValueError, ArithmeticError, LookupError, RecursionError, pa.ArrowException)
# Deeper values are left out: at a fixed depth, so that all workers decide alike, whatever their stacks hold.
_MAX_DEPTH = 64


def read_values(column: pa.Array) -> list[Any]:
    """The values of a column.

    Text that is not UTF-8 has lone surrogates for its odd bytes; what Python has no value for is given as the
    error that says so.
    """
    try:
        return column.to_pylist()
    except _NO_VALUE:
        return [_read_value(item) for item in column]


def _read_value(item: pa.Scalar) -> Any:
    try:
        return item.as_py()
    except _NO_VALUE as error:
        text = item.value if pt.is_dictionary(item.type) else item
        if isinstance(text, pa.StringScalar | pa.LargeStringScalar | pa.StringViewScalar):
            return text.as_buffer().to_pybytes().decode("utf-8", "surrogateescape")
        return error


def name_of(value: Any, row: int) -> str:
    """What a key column's value names its row; the row's number where it names none."""
    try:
        return f"{row:08d}" if value is None or isinstance(value, Exception) else as_text(str(value))
    except RecursionError:
        return f"{row:08d}"


def row_sidecars(
    values: Mapping[str, Any] | None, place: tuple[str, str], *, max_bytes: int, findings: Findings
) -> dict[str, bytes]:
    """A row's values as the json that accompanies its image; nothing where there are none.

    Args:
        values: by the names of their columns; None: of a row that is to have no json.
        place: the file, and where in it the row stands, for the note that its json is left out.
        max_bytes: a longer json is left out.
        findings: what is left out is noted here.
    """
    if values is None:
        return {}
    path, where = place
    try:
        data = encode_row(values)
    except (*_NO_VALUE, TypeError) as error:
        detail = f"{where}: json is left out: {as_text(' '.join(str(error).split())[:200])}"
        findings.notes.append(Problem(path, "odd_sidecar", detail))
        return {}
    if len(data) > max_bytes:
        detail = f"{where}: {len(data)} bytes of json are left out"
        findings.notes.append(Problem(path, "long_sidecar", detail))
        return {}
    return {"json": data}


def encode_row(values: Mapping[str, Any]) -> bytes:
    """A row as JSON in UTF-8; what JSON has no form for becomes Python's text of it.

    Raises:
        ValueError: when values are nested without measure.
        Exception: that `read_values` gave for a value.
    """
    plain = _plain(values, 0)
    try:
        return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), default=str).encode()
    except UnicodeEncodeError:  # half a character, which JSON can escape and UTF-8 does not have
        return json.dumps(plain, separators=(",", ":"), default=str).encode()


def _plain(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError(f"values are nested more than {_MAX_DEPTH} deep")
    match value:
        case dict():
            return {str(name): _plain(item, depth + 1) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item, depth + 1) for item in value]
        case float() if not math.isfinite(value):
            return None
        case bytes():
            return None
        case Exception():
            raise value
        case _:
            return value
