"""Which rows hang together over edges, and the row of each component that survives."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64, Int64, UInt64
from numpy import ndarray

from curation import schema
from curation.runs import run_starts

# Edges hooked at a time: 4 MB a column, so that what is in flight stays small beside the parents. Smaller
# chunks also leave more to find joined already: most edges of a dense graph cost two look-ups.
_CHUNK_EDGES = 1 << 19


class Forest:
    """A union-find over rows: every row points to a smaller one, or to itself as the root of its tree.

    Edges are taken in bulk. All roots that meet a smaller root in a chunk are hooked to the smallest one
    they meet, then paths are halved until every row of the chunk points to its root, and so on until no edge
    joins two trees: a few rounds of array operations. A root is the smallest row of its tree, so the result
    does not depend on the order of edges or on how they are cut into chunks.

    Source: Shiloach and Vishkin, J. Algorithms 3 (1982): hooking and pointer jumping.
    """

    def __init__(self, num_rows: int) -> None:
        """Make a tree of every row; 4 bytes a row below 2^31 rows, 8 above."""
        self._parent = np.arange(num_rows, dtype=np.int32 if num_rows < 2**31 else np.int64)

    def join(self, a: Int64[ndarray, " e"], b: Int64[ndarray, " e"]) -> None:
        """Join the trees of the two ends of every edge."""
        for start in range(0, len(a), _CHUNK_EDGES):
            cut = slice(start, start + _CHUNK_EDGES)
            self._join(a[cut], b[cut])

    def _join(self, a: np.ndarray, b: np.ndarray) -> None:
        is_open = self._parent[a] != self._parent[b]
        a, b = a[is_open], b[is_open]
        while len(a):
            a, b = self._roots(a), self._roots(b)
            is_open = a != b
            a, b = a[is_open], b[is_open]
            # The smallest, not any: a hub with a large number would take its neighbours one a round.
            np.minimum.at(self._parent, np.maximum(a, b), np.minimum(a, b))

    def _roots(self, rows: np.ndarray) -> np.ndarray:
        parent = self._parent
        root: ndarray = parent[rows]
        while True:
            above = parent[root]
            if np.array_equal(above, root):
                return root
            parent[rows] = above  # halves the paths of all rows at once
            root = above

    def labels(self) -> Int64[ndarray, " n"]:
        """The smallest row of every row's tree."""
        while True:
            above: ndarray = self._parent[self._parent]
            if np.array_equal(above, self._parent):
                return above.astype(np.int64)
            self._parent = above


def components(num_rows: int, a: Int64[ndarray, " e"], b: Int64[ndarray, " e"]) -> Int64[ndarray, " n"]:
    """Label every row by the smallest row of its component, whatever the order of the edges.

    Args:
        num_rows: n.
        a: int64 (e,), one end of every edge.
        b: int64 (e,), the other.
    """
    forest = Forest(num_rows)
    forest.join(a, b)
    return forest.labels()


def collapse_equal(codes: UInt64[ndarray, "n w"], order: Int64[ndarray, " n"]) -> Int64[ndarray, " n"]:
    """Find for every row the best row with an equal code.

    Args:
        codes: uint64 (n, w); a SHA-256 is w = 4 (the 32 bytes viewed as words, so that no zero byte is lost).
        order: int64 (n,), rank of every row, smaller is better; no two rows share one.

    Returns:
        int64 (n,): index of the row of smallest rank among those with this row's code; itself if alone.
    """
    by_code = np.lexsort((order, *codes.T[::-1]))
    starts = np.flatnonzero(run_starts(*codes[by_code].T))
    first = np.empty(len(codes), np.int64)
    first[by_code] = np.repeat(by_code[starts], np.diff(starts, append=len(codes)))
    return first


def survivor_order(
    *,
    is_curated: Bool[ndarray, " n"],
    area_px: Int64[ndarray, " n"],
    num_bytes: Int64[ndarray, " n"],
    image_id: UInt64[ndarray, "n 2"],
) -> Int64[ndarray, " n"]:
    """Rank rows by their claim to survive: 0 survives everything.

    Curated before uncurated, then larger area, more bytes, smaller image id, smaller global row (which is
    pool order, then key).

    Args:
        is_curated: bool (n,).
        area_px: int64 (n,), width × height of the upright image.
        num_bytes: int64 (n,), of the file.
        image_id: uint64 (n, 2), the first 16 bytes of the SHA-256 as two big-endian halves.
    """
    # lexsort is stable, so equal rows stay in global order.
    order = np.lexsort((image_id[:, 1], image_id[:, 0], -num_bytes, -area_px, ~is_curated))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


@dataclass(frozen=True)
class CopyRows:
    """Every row of a component of two or more, by row.

    row, representative: global rows. component: components are numbered by their representatives' rows.
    """

    row: Int64[ndarray, " r"]
    component: Int64[ndarray, " r"]
    representative: Int64[ndarray, " r"]


def choose_representatives(labels: Int64[ndarray, " n"], rank: Int64[ndarray, " n"]) -> CopyRows:
    """Choose of every component of two or more the row of best rank.

    Args:
        labels: int64 (n,), any numbers that are equal within a component only.
        rank: int64 (n,), `survivor_order`: smaller survives, no two equal.
    """
    by_label = np.lexsort((rank, labels))
    starts = np.flatnonzero(run_starts(labels[by_label]))
    sizes = np.diff(starts, append=len(labels))
    representative = np.empty(len(labels), np.int64)
    representative[by_label] = np.repeat(by_label[starts], sizes)
    size = np.empty(len(labels), np.int64)
    size[by_label] = np.repeat(sizes, sizes)
    row = np.flatnonzero(size > 1)
    representative = representative[row]
    _, component = np.unique(representative, return_inverse=True)
    return CopyRows(row, component.astype(np.int64), representative)


def copies_table(
    copies: CopyRows, *, is_exact: Bool[ndarray, " r"], scores: Float64[ndarray, " r"]
) -> pa.Table:
    """Write down every row of a component: `schema.COPIES`; a representative has no reason, and score 1.

    Args:
        copies: the rows.
        is_exact: bool (r,), bytes equal to the representative's.
        scores: float64 (r,), of each row with its representative, compared directly.
    """
    is_copy = copies.row != copies.representative
    reason = np.where(is_exact, "exact_copy", "near_copy")
    columns = [
        pa.array(copies.row),
        pa.array(copies.component),
        pa.array(copies.representative),
        pa.array(reason.tolist(), pa.string(), mask=~is_copy),
        pa.array(np.where(is_copy, scores, 1.0)),
    ]
    return pa.Table.from_arrays(columns, schema=schema.COPIES)
