"""Which rows have equal codes."""

import numpy as np
from jaxtyping import Int64, UInt64
from numpy import ndarray


def collapse_equal(codes: UInt64[ndarray, "n w"], order: Int64[ndarray, " n"]) -> Int64[ndarray, " n"]:
    """Find for every row the best row with an equal code.

    Args:
        codes: uint64 (n, w); a SHA-256 is w = 4 (the 32 bytes viewed as words, so that no zero byte is lost).
        order: int64 (n,), rank of every row, smaller is better; no two rows share one.

    Returns:
        int64 (n,): index of the row of smallest rank among those with this row's code; itself if alone.
    """
    if not len(codes):
        return np.zeros(0, np.int64)
    by_code = np.lexsort((order, *codes.T[::-1]))
    sorted_codes = codes[by_code]
    is_new = np.r_[True, (sorted_codes[1:] != sorted_codes[:-1]).any(axis=1)]
    best = by_code[is_new]
    first = np.empty(len(codes), np.int64)
    first[by_code] = np.repeat(best, np.diff(np.r_[np.flatnonzero(is_new), len(codes)]))
    return first
