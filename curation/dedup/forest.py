"""Which rows hang together, over edges that come in any number of chunks and need not fit in memory."""

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

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
        root = parent[rows]
        while True:
            above = parent[root]
            if np.array_equal(above, root):
                return root
            parent[rows] = above  # halves the paths of all rows at once
            root = above

    def labels(self) -> Int64[ndarray, " n"]:
        """The smallest row of every row's tree."""
        while True:
            above = self._parent[self._parent]
            if np.array_equal(above, self._parent):
                return above.astype(np.int64)
            self._parent = above
