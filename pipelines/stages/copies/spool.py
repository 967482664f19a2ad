"""Edges sorted into buckets on a local disk, for edges that do not fit in memory."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from curation.dedup.edges import Edges
from curation.dedup.health import Placed, sort_in_memory
from curation.disk_errors import naming
from curation.runs import batches

_EDGE = np.dtype([("a", "<i8"), ("b", "<i8"), ("score", "<f8"), ("kind", "i1")])
# Edges held before they are written, 25 bytes each: a bucket's file is opened once for all of them.
_HELD_EDGES = 1 << 22


def spooled(pieces: Iterable[Placed], num_buckets: int) -> Iterator[Edges]:
    """Yield the edges of each bucket, in the order in which they came: one pass over the pieces for all.

    Args:
        pieces: edges, and the bucket of each.
        num_buckets: their number; buckets may be empty.

    Raises:
        ExecutorError: the temporary folder (`TMPDIR`) has no room for them, 25 bytes an edge.
    """
    with naming(tempfile.gettempdir()), tempfile.TemporaryDirectory(prefix="lvd-edges-") as folder:
        files = [Path(folder, f"{number:06d}") for number in range(num_buckets)]
        for held in batches(pieces, size=lambda piece: len(piece[0]), least=_HELD_EDGES):
            for file, edges in zip(files, sort_in_memory(held, num_buckets), strict=True):
                if len(edges):
                    with file.open("ab") as out:
                        out.write(_records(edges).tobytes())
        for file in files:
            records = np.fromfile(file, _EDGE) if file.exists() else np.empty(0, _EDGE)
            yield Edges(*(np.ascontiguousarray(records[name]) for name in _EDGE.names or ()))
            file.unlink(missing_ok=True)


def _records(edges: Edges) -> np.ndarray:
    records = np.empty(len(edges), _EDGE)
    for name in _EDGE.names or ():
        records[name] = getattr(edges, name)
    return records
