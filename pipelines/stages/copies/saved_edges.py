"""The saved edges, file by file: those at or above thresholds of the moment."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from curation.dedup.edges import Edges, distinct, onto_roots, stars
from curation.dedup.forest import Forest
from curation.schema import EDGE_KINDS
from curation.search.edges import limit_edges
from pipelines.stages.copies.edge_files import EdgeFile, global_edges

# Edges held (25 MB) before a limit is applied for the first time.
FIRST_LIMIT = 1 << 20


def read_edges(file: EdgeFile, thresholds: Mapping[str, float]) -> Edges:
    """The edges of one file at or above thresholds, by global rows."""
    table = global_edges(file)
    kind = _kind_codes(table)
    floors = np.array([thresholds.get(name, np.inf) for name in EDGE_KINDS])
    score = table["score"].to_numpy()
    edges = Edges(table["a"].to_numpy(), table["b"].to_numpy(), score, kind)
    return edges.take(score >= floors[kind])


def _kind_codes(table: pa.Table) -> np.ndarray:
    kind = table["kind"].unify_dictionaries().combine_chunks()
    if isinstance(kind, pa.ChunkedArray):  # of no chunks, where the table is empty
        return np.zeros(0, np.int8)
    codes = np.array([EDGE_KINDS.index(name) for name in kind.dictionary.to_pylist()], np.int8)
    return codes[kind.indices.to_numpy()]


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
    ) -> None:
        self._files = files
        self._thresholds = dict(thresholds)
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
        edges = read_edges(file, self._thresholds)
        for kind in self._thresholds:
            yield kind, edges.take(edges.kind == EDGE_KINDS.index(kind))

    def _limit(self, kind: str, max_edges_per_row: int) -> Edges:
        held, next_limit = Edges.joined([]), FIRST_LIMIT
        for last, edges in self._pieces(kind):
            held = Edges.joined([held, edges])
            if last or len(held) > next_limit:
                held = distinct(held)
                keep = limit_edges(held.a, held.b, held.score, max_edges_per_row=max_edges_per_row)
                self.num_dropped += len(held) - int(keep.sum())
                held = held.take(keep)
                next_limit = max(next_limit, 2 * len(held))
        return held

    def _pieces(self, kind: str) -> Iterator[tuple[bool, Edges]]:
        for number, file in enumerate(self._files, 1):
            yield number == len(self._files), dict(self._moved(file))[kind]

    def _moved(self, file: EdgeFile) -> Iterator[tuple[str, Edges]]:
        for kind, edges in self._by_kind(file):
            yield kind, onto_roots(edges, self._roots[kind]) if kind in self._roots else edges

    def __iter__(self) -> Iterator[Edges]:
        """The pieces, in an order of their own that is always the same."""
        for kind, roots in self._roots.items():
            yield stars(kind, roots)
        if self._limited is not None:
            yield from self._limited
            return
        for file in self._files:
            yield Edges.joined([edges for _, edges in self._moved(file)])
