"""How alike images are by their descriptors. Apart from hashes: torch takes seconds to import."""

from functools import partial

import numpy as np
from jaxtyping import Float16, Float64, Int64
from numpy import ndarray

from curation.dedup.components import components
from curation.search.collapse import collapsed_pairs
from curation.search.exact import cosine_pairs
from curation.search.product import exact_scores, nonzero_rows


def copies_among(vectors: Float16[ndarray, "n d"], *, threshold: float) -> Int64[ndarray, " n"]:
    """Label images by what they are copies of: those of near descriptors, and who hangs together over these.

    Args:
        vectors: fp16 (n, d), unit rows, or zeros where there is no vector: such a row stands alone.
        threshold: smallest cosine of two copies; equal vectors are copies in any case.

    Returns:
        int64 (n,): the smallest row of each row's component (see `choose_representatives`).
    """
    search = partial(cosine_pairs, threshold=threshold, same=True)
    pairs = collapsed_pairs(vectors, vectors, same=True, search=search)
    return components(len(vectors), pairs.a, pairs.b)


def cosine_scores(left: Float16[ndarray, "r d"], right: Float16[ndarray, "r d"]) -> Float64[ndarray, " r"]:
    """The exact inner product; 1 for equal vectors, -inf where one of the two is zeros."""
    scores = np.full(len(left), -np.inf)
    both = np.flatnonzero(nonzero_rows(left) & nonzero_rows(right))
    scores[both] = exact_scores(left, right, rows=both, columns=both)
    scores[both[(left[both] == right[both]).all(axis=1)]] = 1
    return scores
