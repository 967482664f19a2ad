"""Miniatures: whether two pictures have the same pixels, to within what re-encoding and resizing change.

They are for pictures of which a hash knows too little. A miniature is a row of bytes: a mark; the mean
colours of 32 x 32 cells; and, of a picture with more in it than these cells show, a digest of its pixels.
"""

from functools import partial

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from numpy import ndarray

from curation.search.collapse import collapsed_pairs
from curation.search.edges import EdgeCollector, Pairs

SIDE_CELLS = 32
NUM_COLOURS = SIDE_CELLS**2 * 3
DIGEST_BYTES = 16
NUM_BYTES = 1 + NUM_COLOURS + DIGEST_BYTES
PLAIN, FINE = 1, 2  # marks; never 0, so that no miniature is a row of zeros

# A cell may differ by so many levels, and by one part in so many of its contrast to the cells around it. Of
# 124 plain pictures of poor hash 114 are found after a JPEG of quality 80. No two unlike ones of 394 meet
# with one part in 4; two letters do with one in 3.
BASE_LEVELS = 5
CONTRAST_SHARE = 4

# The score is 1 - w / 10, where w is the largest difference in units of what is allowed: 1 is the limit.
_WORST = 10.0
LEAST_SCORE = 1 - 1 / _WORST
_TILE_ROWS, _TILE_COLUMNS = 512, 1024


def miniature_scores(left: UInt8[ndarray, "r d"], right: UInt8[ndarray, "r d"]) -> Float64[ndarray, " r"]:
    """How alike pictures are, pair by pair: 1 for equal miniatures, `LEAST_SCORE` at the limit, 0 for none.

    Args:
        left: uint8 (r, 3089), miniatures.
        right: uint8 (r, 3089), each with the one of its place.
    """
    one, other = _colours(left).astype(np.int16), _colours(right).astype(np.int16)
    allowed = np.minimum(_allowed(_colours(left)), _allowed(_colours(right)))
    worst = (np.abs(one - other) / allowed).max(axis=(1, 2, 3), initial=0)
    scores = 1 - np.minimum(worst, _WORST) / _WORST
    scores[(left[:, 0] == FINE) | (right[:, 0] == FINE)] = 0
    scores[(left == right).all(axis=1)] = 1
    return scores


def miniature_pairs(
    a: UInt8[ndarray, "n d"],
    b: UInt8[ndarray, "m d"],
    *,
    same: bool,
    every_a: bool = False,
    max_edges_per_row: int | None = None,
) -> Pairs:
    """Find the pairs of pictures with the same pixels, to within what re-encoding and resizing change.

    Equal miniatures are collapsed first (see `collapsed_pairs`): one placeholder a million times is a star.

    Args:
        a: uint8 (n, 3089), miniatures.
        b: uint8 (m, 3089), likewise.
        same: `b` is `a`: each pair once, a < b.
        every_a: see `collapsed_pairs`.
        max_edges_per_row: see `curation.search.edges.limit_edges`; None for all.

    Returns:
        Pairs of `miniature_scores` of at least `LEAST_SCORE`, sorted by (a, b).
    """
    search = partial(_near, same=same, max_edges_per_row=max_edges_per_row)
    return collapsed_pairs(a, b, same=same, every_a=every_a, search=search)


def _near(
    a: UInt8[ndarray, "n d"], b: UInt8[ndarray, "m d"], *, same: bool, max_edges_per_row: int | None
) -> Pairs:
    """All pairs of plain miniatures. A product proposes: differences that are allowed have an allowed sum."""
    rows_a, rows_b = (np.flatnonzero(side[:, 0] == PLAIN) for side in (a, b))
    most_a, most_b = _most_apart(a[rows_a]), _most_apart(b[rows_b])
    collector = EdgeCollector(len(a), len(b), same, max_edges_per_row)
    for row in range(0, len(rows_a), _TILE_ROWS):
        left = slice(row, row + _TILE_ROWS)
        for column in range(row if same else 0, len(rows_b), _TILE_COLUMNS):
            right = slice(column, column + _TILE_COLUMNS)
            apart = _squares_apart(a[rows_a[left]], b[rows_b[right]])
            i, j = np.nonzero(apart <= np.minimum(most_a[left, None], most_b[right]))
            rows, columns = rows_a[left][i], rows_b[right][j]
            if same:
                once = rows < columns
                rows, columns = rows[once], columns[once]
            for k in range(0, len(rows), _TILE_ROWS):
                ends = rows[k : k + _TILE_ROWS], columns[k : k + _TILE_ROWS]
                score = miniature_scores(a[ends[0]], b[ends[1]])
                keep = score >= LEAST_SCORE
                collector.add(ends[0][keep], ends[1][keep], score[keep])
    return collector.pairs()


def _squares_apart(a: UInt8[ndarray, "n d"], b: UInt8[ndarray, "m d"]) -> Float64[ndarray, "n m"]:
    """Sums of squared differences: whole numbers below 2^53, so exact, whatever the order of the sums."""
    left, right = (_colours(side).reshape(len(side), -1).astype(np.float64) for side in (a, b))
    return (left * left).sum(axis=1)[:, None] + (right * right).sum(axis=1) - 2 * (left @ right.T)


def _colours(miniatures: UInt8[ndarray, "r d"]) -> UInt8[ndarray, "r c c 3"]:
    return miniatures[:, 1 : 1 + NUM_COLOURS].reshape(-1, SIDE_CELLS, SIDE_CELLS, 3)


def _allowed(colours: UInt8[ndarray, "r c c 3"]) -> Int64[ndarray, "r c c 3"]:
    """By how many levels each cell may differ: more where it lies among cells of other colours."""
    return BASE_LEVELS + contrast(colours).astype(np.int64) // CONTRAST_SHARE


def contrast(colours: UInt8[ndarray, "r c c 3"]) -> UInt8[ndarray, "r c c 3"]:
    """The range of levels of each cell and the eight around it."""
    edged = np.pad(colours, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    side = colours.shape[1]
    around = [edged[:, i : i + side, j : j + side] for i in range(3) for j in range(3)]
    lowest, highest = around[0], around[0]
    for cells in around[1:]:
        lowest, highest = np.minimum(lowest, cells), np.maximum(highest, cells)
    return highest - lowest


def _most_apart(miniatures: UInt8[ndarray, "r d"]) -> Float64[ndarray, " r"]:
    """The largest sum of squared differences that is allowed."""
    squares = [
        (_allowed(_colours(miniatures[k : k + _TILE_ROWS])) ** 2).sum(axis=(1, 2, 3))
        for k in range(0, len(miniatures), _TILE_ROWS)
    ]
    return np.concatenate([np.zeros(0), *squares])
