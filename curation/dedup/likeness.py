"""How alike two images are directly, by every kind of comparison in use."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, UInt64
from numpy import ndarray


@dataclass(frozen=True)
class Likeness:
    """Pairs compared directly: the best score of all kinds, and the best score / threshold.

    A likeness of 1 is what makes an edge; equal bytes, hashes or descriptors are alike without bound. Where
    nothing could be compared both are 0.
    """

    score: Float64[ndarray, " r"]
    likeness: Float64[ndarray, " r"]


def compare(
    by_kind: Mapping[str, Float64[ndarray, " r"]],
    *,
    is_exact: Bool[ndarray, " r"],
    thresholds: Mapping[str, float],
) -> Likeness:
    """Put the scores of all kinds together.

    A pair that came together through a chain of others may score below every threshold: that is what the
    numbers are there to show.

    Args:
        by_kind: `hash_scores` and `cosine_scores`; -inf where a pair could not be compared.
        is_exact: equal bytes; their score is 1.
        thresholds: the score from which a pair is an edge, of the same kinds.
    """
    score = np.zeros(len(is_exact))
    likeness = np.zeros(len(is_exact))
    compared = np.zeros(len(is_exact), bool)
    for kind, scores in by_kind.items():
        has = scores > -np.inf
        score = np.where(has & (~compared | (scores > score)), scores, score)
        alike = np.where(scores == 1, np.inf, scores / thresholds[kind])
        likeness = np.where(has & (~compared | (alike > likeness)), alike, likeness)
        compared |= has
    score[is_exact], likeness[is_exact] = 1, np.inf
    return Likeness(score, likeness)


def hash_scores(
    left: UInt64[ndarray, " r"], right: UInt64[ndarray, " r"], *, has: Bool[ndarray, " r"] | None = None
) -> Float64[ndarray, " r"]:
    """1 - distance / 64; -inf where `has` says that one of the two has no hash."""
    scores = 1 - np.bitwise_count(left ^ right) / 64
    return scores if has is None else np.where(has, scores, -np.inf)
