"""How alike images are by their descriptors. Apart from hashes: torch takes seconds to import."""

import numpy as np
from jaxtyping import Float16, Float64
from numpy import ndarray

from curation.search.product import exact_scores, nonzero_rows


def cosine_scores(left: Float16[ndarray, "r d"], right: Float16[ndarray, "r d"]) -> Float64[ndarray, " r"]:
    """The exact inner product; 1 for equal vectors, -inf where one of the two is zeros."""
    scores = np.full(len(left), -np.inf)
    both = np.flatnonzero(nonzero_rows(left) & nonzero_rows(right))
    scores[both] = exact_scores(left, right, rows=both, columns=both)
    scores[both[(left[both] == right[both]).all(axis=1)]] = 1
    return scores
