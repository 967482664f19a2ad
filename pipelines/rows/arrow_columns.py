"""Numbers and rows out of Arrow tables, where an answer is wanted at once.

`to_numpy`, `pa.array` and every scalar make pyarrow import pandas wherever it is installed, and that takes as
long as all else that a question about one image costs. These go without.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_TYPES = {
    "int8": np.int8, "int16": np.int16, "int32": np.int32, "int64": np.int64, "uint8": np.uint8,
    "uint64": np.uint64, "float": np.float32, "double": np.float64,
}  # fmt: skip


def numbers(column: pa.ChunkedArray, *, null: float = -1) -> np.ndarray:
    """A column of numbers as a NumPy array.

    Args:
        column: of integers or floats.
        null: what stands where there is no value.
    """
    dtype = np.dtype(_TYPES[str(column.type)])
    return np.concatenate([np.zeros(0, dtype), *(_chunk(chunk, dtype, null) for chunk in column.chunks)])


def _chunk(chunk: pa.Array, dtype: np.dtype, null: float) -> np.ndarray:
    if not len(chunk):
        return np.zeros(0, dtype)
    validity, data = chunk.buffers()
    here = slice(chunk.offset, chunk.offset + len(chunk))
    values = np.frombuffer(data, dtype)[here]
    if not chunk.null_count:
        return values
    valid = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")[here]
    return np.where(valid, values, dtype.type(null))


def rows_at(table: pa.Table, places: Iterable[int]) -> list[dict[str, Any]]:
    """Some rows of a table as plain data, in the order of `places`."""
    return [row for place in places for row in table.slice(int(place), 1).to_pylist()]


def places_of(column: pa.ChunkedArray, text: str) -> list[int]:
    """Where a column of strings is equal to `text`."""
    begins = pc.indices_nonzero(pc.starts_with(column, text)).to_pylist()
    return [place for place in begins if column[place].as_py() == text]


def places_with_prefix(column: pa.ChunkedArray, prefix: str) -> list[int]:
    """Where a column of strings begins with `prefix`."""
    places: list[int] = pc.indices_nonzero(pc.starts_with(column, prefix)).to_pylist()
    return places
