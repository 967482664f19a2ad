"""FAISS, imported where a search begins, since whoever asks about a run needs none; and what we ask of it."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped
from numpy import ndarray

from curation.packages import needing

# At most 4 M results (48 MB) a tile, however many rows are near each other.
_TILE_ROWS = 256
_TILE_COLUMNS = 16_384


def load_faiss() -> Any:
    """The module `faiss`.

    Raises:
        ConfigError: it is not installed, or cannot be imported.
    """
    install = "On every machine: pip install 'lvd[cpu]', or 'lvd[gpu]' where indexes are on a GPU"
    with needing("Copies and neighbours are searched with FAISS", install=install):
        import faiss
    return faiss


def set_search_threads(threads: int) -> None:
    """Use so many threads for every FAISS search of this process."""
    load_faiss().omp_set_num_threads(threads)


def range_search(
    a: Shaped[ndarray, "n d"],
    b: Shaped[ndarray, "m d"],
    *,
    make_index: Callable[[], Any],
    radius: float | int,
    same: bool,
) -> Iterator[tuple[Int64[ndarray, " e"], Int64[ndarray, " e"], Shaped[ndarray, " e"]]]:
    """Search all rows of one side for all of the other, by an index for each tile of these.

    Args:
        a: rows as the index takes them.
        b: likewise.
        make_index: an empty index.
        radius: as `range_search` of the index has it: what is on its edge is not found.
        same: `b` is `a`: each pair once, i < j.

    Yields:
        Places among `a`, places among `b`, and FAISS's distance or score.
    """
    for column in range(0, len(b), _TILE_COLUMNS):
        index = make_index()
        index.add(b[column : column + _TILE_COLUMNS])
        last_row = min(len(a), column + _TILE_COLUMNS) if same else len(a)
        for row in range(0, last_row, _TILE_ROWS):
            queries = a[row : min(row + _TILE_ROWS, last_row)]
            ends, value, found = index.range_search(queries, radius)
            i = np.repeat(np.arange(len(queries)), np.diff(ends).astype(np.int64)) + row
            j = found.astype(np.int64) + column
            keep = i < j if same else slice(None)
            yield i[keep], j[keep], value[keep]
