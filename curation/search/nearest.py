"""The nearest rows of one query, exactly, with NumPy alone.

`curation.search.topk` is for many queries: its cheap products pay where each tile of rows is read once for
a thousand of them. One query is bound by reading the rows, whatever the arithmetic, and without torch its
answer is there before torch would be imported.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float16, Float64, Int64, UInt64
from numpy import ndarray

CHUNK_ROWS = 8192


@dataclass(frozen=True)
class NearCandidates:
    """Rows of a block that may be among the k nearest, and their scores."""

    index: Int64[ndarray, " c"]
    score: Float64[ndarray, " c"]


@dataclass(frozen=True)
class Nearest:
    """The best rows so far, best first: higher score, then smaller image id, then smaller row."""

    row: Int64[ndarray, " m"]
    score: Float64[ndarray, " m"]
    image_id: UInt64[ndarray, "m 2"]  # the first 16 bytes of the SHA-256 as two big-endian halves


def no_rows() -> Nearest:
    """Where a search begins."""
    return Nearest(np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 2), np.uint64))


def candidates(
    query: Float16[ndarray, " d"], vectors: Float16[ndarray, "n d"], *, k: int, floor: float = -np.inf
) -> NearCandidates:
    """The rows of a block that may be among the k nearest of all blocks.

    Args:
        query: a unit vector.
        vectors: unit rows; zeros where a row has none, and then it is no candidate.
        k: at least 1.
        floor: score of the k-th best row of the blocks before.

    Returns:
        The rows that score as well as the k-th best of the block, and as `floor`, in order of rows. The score
        is the fp64 inner product of the stored fp16 vectors, which is exact (`curation.search.product`).
    """
    wide = query.astype(np.float64)
    score = np.empty(len(vectors))
    for start in range(0, len(vectors), CHUNK_ROWS):
        chunk = np.asarray(vectors[start : start + CHUNK_ROWS]).astype(np.float64)
        mine = chunk @ wide
        mine[~chunk.any(axis=1)] = -np.inf
        score[start : start + CHUNK_ROWS] = mine
    least = floor
    if len(score) > k:
        least = max(floor, float(np.partition(score, len(score) - k)[len(score) - k]))
    index = np.flatnonzero((score >= least) & (score > -np.inf))
    return NearCandidates(index, score[index])


def take_best(best: Nearest, more: Nearest, *, k: int) -> Nearest:
    """The k best of two sets of different rows."""
    row = np.concatenate([best.row, more.row])
    score = np.concatenate([best.score, more.score])
    image_id = np.concatenate([best.image_id, more.image_id])
    order = np.lexsort((row, image_id[:, 1], image_id[:, 0], -score))[:k]
    return Nearest(row[order], score[order], image_id[order])
