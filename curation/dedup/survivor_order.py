"""Which of several copies survives."""

import numpy as np
from jaxtyping import Bool, Int64, UInt64
from numpy import ndarray


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

    Returns:
        int64 (n,), a permutation: the rank of every row.
    """
    # lexsort is stable, so equal rows stay in global order.
    order = np.lexsort((image_id[:, 1], image_id[:, 0], -num_bytes, -area_px, ~is_curated))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank
