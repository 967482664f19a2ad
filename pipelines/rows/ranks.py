"""Orders of global rows that break ties."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from pipelines.rows.parts import Part, sha256_words


def id_rank(parts: Sequence[Part]) -> Int64[np.ndarray, " n"]:
    """The place of every row's image id among all ids; equal exactly where ids are equal."""
    words = sha256_words(parts)
    order = np.lexsort((words[:, 1], words[:, 0]))
    by_id = words[order, :2]
    new = np.ones(len(order), bool)
    new[1:] = (by_id[1:] != by_id[:-1]).any(axis=1)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.cumsum(new) - 1
    return rank
