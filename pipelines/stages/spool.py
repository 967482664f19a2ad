"""Edges sorted into buckets on a local disk, for edges that do not fit in memory."""

import tempfile
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from curation.dedup.edges import Edges

_EDGE = np.dtype([("a", "<i8"), ("b", "<i8"), ("score", "<f8"), ("kind", "i1")])
# Edges held before they are written, 25 bytes each: a bucket's file is opened once for all of them.
_HELD_EDGES = 1 << 22


def spooled(pieces: Iterable[tuple[Edges, Int64[ndarray, " e"]]], num_buckets: int) -> Iterator[Edges]:
    """Yield the edges of each bucket, in the order in which they came: one pass over the pieces for all.

    Args:
        pieces: edges, and the bucket of each.
        num_buckets: their number; buckets may be empty.

    Raises:
        OSError: the temporary folder (`TMPDIR`) has no room for them, 25 bytes an edge.
    """
    with tempfile.TemporaryDirectory(prefix="lvd-edges-") as folder:
        files = [Path(folder, f"{number:06d}") for number in range(num_buckets)]
        for edges, bucket in _in_runs(pieces):
            order = np.argsort(bucket, kind="stable")
            records = np.empty(len(edges), _EDGE)
            for name in _EDGE.names or ():
                records[name] = getattr(edges, name)[order]
            bounds = np.searchsorted(bucket[order], np.arange(num_buckets + 1)).tolist()
            for file, (start, stop) in zip(files, pairwise(bounds), strict=True):
                if stop > start:
                    with file.open("ab") as out:
                        out.write(records[start:stop].tobytes())
        for file in files:
            records = np.fromfile(file, _EDGE) if file.exists() else np.empty(0, _EDGE)
            yield Edges(*(np.ascontiguousarray(records[name]) for name in _EDGE.names or ()))
            file.unlink(missing_ok=True)


def _in_runs(
    pieces: Iterable[tuple[Edges, Int64[ndarray, " e"]]],
) -> Iterator[tuple[Edges, Int64[ndarray, " e"]]]:
    held: list[tuple[Edges, np.ndarray]] = []
    num_held = 0
    for edges, bucket in pieces:
        held.append((edges, bucket))
        num_held += len(edges)
        if num_held >= _HELD_EDGES:
            yield Edges.joined([edges for edges, _ in held]), np.concatenate([own for _, own in held])
            held, num_held = [], 0
    if held:
        yield Edges.joined([edges for edges, _ in held]), np.concatenate([own for _, own in held])
