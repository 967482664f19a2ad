"""Miniatures: whether two pictures have the same pixels, to within what re-encoding and resizing change.

They are for pictures of which a hash knows too little. A miniature is a row of bytes: a mark; the mean
colours of 32 x 32 cells; and, of a picture with more in it than these cells show, a digest of its pixels.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8
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
# Of what a product in single precision proposes, so many colours are looked at before all of them: most
# unlike pictures differ in one of these. The step has no factor in common with a row of cells.
_SAMPLE_STEP = 11
# A product sums 3,072 whole numbers of at most 2^14, and each sum, below 2^26, is rounded by at most 2. It
# counts twice.
_ROUNDING = 2 * 2 * NUM_COLOURS


def miniature_scores(left: UInt8[ndarray, "r d"], right: UInt8[ndarray, "r d"]) -> Float64[ndarray, " r"]:
    """How alike pictures are, pair by pair: 1 for equal miniatures, `LEAST_SCORE` at the limit, 0 for none.

    Args:
        left: uint8 (r, 3089), miniatures.
        right: uint8 (r, 3089), each with the one of its place.
    """
    pairs = [
        (_flat(side), _allowed(_colours(side)).reshape(len(side), NUM_COLOURS)) for side in (left, right)
    ]
    (one, one_allowed), (other, other_allowed) = pairs
    scores = _scores(one, other, np.minimum(one_allowed, other_allowed))
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


@dataclass(frozen=True)
class _Side:
    """The plain miniatures of one side, ordered by brightness, and what is asked of each for many pairs.

    rows: their places. allowed: by how much each colour may differ. total: sum of all colours. reach: how far
    the total of a picture that is alike may lie from it. squares: of the colours around mid-grey, summed.
    most: the largest sum of squared differences that is allowed.
    """

    rows: Int64[ndarray, " p"]
    colours: UInt8[ndarray, "p k"]
    allowed: UInt8[ndarray, "p k"]
    total: Int64[ndarray, " p"]
    reach: Int64[ndarray, " p"]
    squares: Int64[ndarray, " p"]
    most: Int64[ndarray, " p"]

    @staticmethod
    def of(miniatures: UInt8[ndarray, "n d"]) -> "_Side":
        rows = np.flatnonzero(miniatures[:, 0] == PLAIN)
        total = _flat(miniatures).sum(axis=1, dtype=np.int64)[rows]
        order = np.argsort(total, kind="stable")
        rows, total = rows[order], total[order]
        colours, allowed = _flat(miniatures[rows]), np.empty((len(rows), NUM_COLOURS), np.uint8)
        reach, squares, most = np.empty((3, len(rows)), np.int64)
        for start in range(0, len(rows), _TILE_ROWS):
            tile = slice(start, start + _TILE_ROWS)
            allowed[tile] = _allowed(_colours(miniatures[rows[tile]])).reshape(-1, NUM_COLOURS)
            wide = allowed[tile].astype(np.int64)
            reach[tile], most[tile] = wide.sum(axis=1), (wide * wide).sum(axis=1)
            centred = colours[tile].astype(np.int64) - 128
            squares[tile] = (centred * centred).sum(axis=1)
        return _Side(rows, colours, allowed, total, reach, squares, most)

    def centred(self, tile: slice) -> np.ndarray:
        """Colours around mid-grey in single precision."""
        return self.colours[tile].astype(np.float32) - 128


def _near(
    a: UInt8[ndarray, "n d"], b: UInt8[ndarray, "m d"], *, same: bool, max_edges_per_row: int | None
) -> Pairs:
    """All pairs of plain miniatures: of near brightness, then of a near product, then colour by colour."""
    left = _Side.of(a)
    right = left if same else _Side.of(b)
    collector = EdgeCollector(len(a), len(b), same, max_edges_per_row)
    for row in range(0, len(left.rows), _TILE_ROWS):
        tile = slice(row, row + _TILE_ROWS)
        lowest = (left.total[tile] - left.reach[tile]).min()
        highest = (left.total[tile] + left.reach[tile]).max()
        first, last = np.searchsorted(right.total, [lowest, highest + 1]).tolist()
        for column in range(max(first, row) if same else first, last, _TILE_COLUMNS):
            i, j = _proposed(left, tile, right, slice(column, min(column + _TILE_COLUMNS, last)))
            if same:
                i, j = i[i < j], j[i < j]
            for k in range(0, len(i), _TILE_ROWS):
                ends = i[k : k + _TILE_ROWS], j[k : k + _TILE_ROWS]
                one, other, score = _alike(left, right, *ends)
                rows, columns = left.rows[one], right.rows[other]
                if same:
                    rows, columns = np.minimum(rows, columns), np.maximum(rows, columns)
                collector.add(rows, columns, score)
    return collector.pairs()


def _proposed(
    left: _Side, rows: slice, right: _Side, columns: slice
) -> tuple[Int64[ndarray, " e"], Int64[ndarray, " e"]]:
    """The pairs of a tile, by place, whose sum of squared differences may be allowed."""
    product = (left.centred(rows) @ right.centred(columns).T).astype(np.float64)
    apart = left.squares[rows, None] + right.squares[columns] - 2 * product
    i, j = np.nonzero(apart <= np.minimum(left.most[rows, None], right.most[columns]) + _ROUNDING)
    return i + rows.start, j + columns.start


def _alike(
    left: _Side, right: _Side, i: Int64[ndarray, " e"], j: Int64[ndarray, " e"]
) -> tuple[Int64[ndarray, " f"], Int64[ndarray, " f"], Float64[ndarray, " f"]]:
    """Those of some pairs, by place, of which every colour differs by no more than is allowed; and scores."""
    for colours in (slice(None, None, _SAMPLE_STEP), slice(None)):
        near = _all_near(
            *(left.colours[i, colours], right.colours[j, colours]),
            *(left.allowed[i, colours], right.allowed[j, colours]),
        )
        i, j = i[near], j[near]
    return i, j, _scores(left.colours[i], right.colours[j], np.minimum(left.allowed[i], right.allowed[j]))


def _all_near(
    one: UInt8[ndarray, "r k"],
    other: UInt8[ndarray, "r k"],
    one_allowed: UInt8[ndarray, "r k"],
    other_allowed: UInt8[ndarray, "r k"],
) -> Bool[ndarray, " r"]:
    apart = np.maximum(one, other) - np.minimum(one, other)
    return np.asarray((apart <= np.minimum(one_allowed, other_allowed)).all(axis=1))


def _scores(
    one: UInt8[ndarray, "r k"], other: UInt8[ndarray, "r k"], allowed: UInt8[ndarray, "r k"]
) -> Float64[ndarray, " r"]:
    apart = np.maximum(one, other) - np.minimum(one, other)
    worst = np.divide(apart, allowed, dtype=np.float64).max(axis=1, initial=0)
    return np.asarray(1 - np.minimum(worst, _WORST) / _WORST)


def _flat(miniatures: UInt8[ndarray, "r d"]) -> UInt8[ndarray, "r k"]:
    return miniatures[:, 1 : 1 + NUM_COLOURS]


def _colours(miniatures: UInt8[ndarray, "r d"]) -> UInt8[ndarray, "r c c 3"]:
    return miniatures[:, 1 : 1 + NUM_COLOURS].reshape(-1, SIDE_CELLS, SIDE_CELLS, 3)


def _allowed(colours: UInt8[ndarray, "r c c 3"]) -> UInt8[ndarray, "r c c 3"]:
    """By how many levels each cell may differ: more where it lies among cells of other colours."""
    return np.asarray(BASE_LEVELS + contrast(colours) // CONTRAST_SHARE)


def contrast(colours: UInt8[ndarray, "r c c 3"]) -> UInt8[ndarray, "r c c 3"]:
    """The range of levels of each cell and the eight around it."""
    edged = np.pad(colours, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    side = colours.shape[1]
    around = [edged[:, i : i + side, j : j + side] for i in range(3) for j in range(3)]
    lowest, highest = around[0], around[0]
    for cells in around[1:]:
        lowest, highest = np.minimum(lowest, cells), np.maximum(highest, cells)
    return np.asarray(highest - lowest)
