"""Edges as they are saved, a file for each pair of blocks, and those of them that decide.

In the file a row counts from the first one of its block, and `EdgeFile` knows where that one stands. With
global rows in it the file would change, and a join be done anew, whenever a pool that stands before grows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from curation import storage
from curation.dedup.components import Forest
from curation.dedup.edges import Edges, distinct, kind_column, onto_roots, stars
from curation.schema import EDGE_KINDS, EDGES
from curation.search.edges import limit_edges
from pipelines.engine.step import FileRef
from pipelines.rows.parts import read

EDGES_FILE = "edges.parquet"
# Edges held (25 MB) before a limit is applied for the first time.
FIRST_LIMIT = 1 << 20


@dataclass(frozen=True)
class EdgeFile:
    """A file of edges, and the global rows from which it counts those of `a` and of `b`."""

    file: FileRef
    first_a: int = 0
    first_b: int = 0


def write_edges(path: Path, edges: Edges) -> None:
    """Leave edges as `schema.EDGES`."""
    columns = (edges.a, edges.b, edges.score, kind_column(edges.kind))
    storage.write_table(path, pa.Table.from_arrays([pa.array(column) for column in columns], schema=EDGES))


def read_edges(file: EdgeFile) -> Edges:
    """The edges of a file, by global rows."""
    table = read(file.file)
    kind = table["kind"].unify_dictionaries().combine_chunks()
    codes = np.zeros(0, np.int8)
    if not isinstance(kind, pa.ChunkedArray):  # of no chunks, where the table is empty
        codes = np.array([EDGE_KINDS.index(name) for name in kind.dictionary.to_pylist()], np.int8)
        codes = codes[kind.indices.to_numpy()]
    a, b = table["a"].to_numpy() + file.first_a, table["b"].to_numpy() + file.first_b
    return Edges(a, b, table["score"].to_numpy(), codes)


def read_deciding(file: EdgeFile, thresholds: Mapping[str, float]) -> Edges:
    """Those edges of a file that are at or above the threshold of their kind."""
    edges = read_edges(file)
    return edges.take(edges.reach(thresholds))


class DecidingEdges:
    """The edges of a self-join that decide, in pieces; can be gone through again and again.

    Rows that are equal by a kind (score 1) count as one in that kind: their edges stand on the smallest of
    them, to which the others are tied by stars. So what comes out does not depend on how rows were cut into
    blocks. Blocks limited their own edges alone; the limit is applied again to the union of each kind, which
    gives what it would have given on the whole (see `limit_edges`). It never takes a star.

    Without a limit one file is in memory at a time, and 8 bytes a row for each kind with equal rows; with a
    limit as many edges as it lets through, twice.

    Args:
        files: the saved edges.
        thresholds: the score from which a pair is an edge, by kind in use.
        num_rows: global rows.
        max_edges_per_row: the limit; None for none.
        firsts: int64 (n, 2), every usable row, and the one with the same bytes that stood for it in the join;
            None: equal bytes make no edges.

    Attributes:
        num_dropped: edges that the limit lets go here, after those that it took within pairs of blocks.
    """

    def __init__(
        self,
        files: Sequence[EdgeFile],
        thresholds: Mapping[str, float],
        *,
        num_rows: int,
        max_edges_per_row: int | None = None,
        firsts: Int64[np.ndarray, "n 2"] | None = None,
    ) -> None:
        self._files = files
        self._thresholds = dict(thresholds)
        self._exact = _exact_edges(np.zeros((0, 2), np.int64) if firsts is None else firsts)
        self._roots = self._find_roots(num_rows)
        self.num_dropped = 0
        self._limited: list[Edges] | None = None
        if max_edges_per_row is not None:
            self._limited = [self._limit(kind, max_edges_per_row) for kind in thresholds]

    def _find_roots(self, num_rows: int) -> dict[str, Int64[np.ndarray, " n"]]:
        forests: dict[str, Forest] = {}
        for file in self._files:
            for kind, edges in self._by_kind(file):
                equal = edges.take(edges.score == 1)
                if len(equal):
                    forests.setdefault(kind, Forest(num_rows)).join(equal.a, equal.b)
        return {kind: forest.labels() for kind, forest in forests.items()}

    def _by_kind(self, file: EdgeFile) -> Iterator[tuple[str, Edges]]:
        edges = read_deciding(file, self._thresholds)
        for kind in self._thresholds:
            yield kind, edges.take(edges.kind == EDGE_KINDS.index(kind))

    def _limit(self, kind: str, max_edges_per_row: int) -> Edges:
        held, next_limit = Edges.joined([]), FIRST_LIMIT
        for number, file in enumerate(self._files, 1):
            held = Edges.joined([held, dict(self._moved(file))[kind]])
            if number == len(self._files) or len(held) > next_limit:
                held = distinct(held)
                keep = limit_edges(held.a, held.b, held.score, max_edges_per_row=max_edges_per_row)
                self.num_dropped += len(held) - int(keep.sum())
                held = held.take(keep)
                next_limit = max(next_limit, 2 * len(held))
        return held

    def _moved(self, file: EdgeFile) -> Iterator[tuple[str, Edges]]:
        for kind, edges in self._by_kind(file):
            yield kind, onto_roots(edges, self._roots[kind]) if kind in self._roots else edges

    def __iter__(self) -> Iterator[Edges]:
        """The pieces, in an order of their own that is always the same; equal bytes first."""
        yield self._exact
        for kind, roots in self._roots.items():
            yield stars(kind, roots)
        if self._limited is not None:
            yield from self._limited
            return
        for file in self._files:
            yield Edges.joined([edges for _, edges in self._moved(file)])


def _exact_edges(firsts: Int64[np.ndarray, "n 2"]) -> Edges:
    copied = firsts[firsts[:, 0] != firsts[:, 1]]
    return Edges.of_kind("exact", copied.min(axis=1), copied.max(axis=1), np.ones(len(copied)))
