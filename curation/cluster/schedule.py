"""The course of k-means: on which rows, from how many seeds at a time, and until when.

Apart from the code that clusters, which takes seconds to import.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from curation.cluster.config import num_seeding_rows

_BATCH_SHARE = 32  # of k a batch is this part, within bounds: large batches are products, and few rounds
_MIN_BATCH, _MAX_BATCH = 256, 8192  # the largest compares its own candidates in 0.5 GB


def sample_rows(num_rows: int, num_wanted: int, *, seed: int) -> Int64[np.ndarray, "r"]:
    """Draw rows evenly: one from each of `num_wanted` equal runs; all of them where that is no fewer."""
    if num_wanted >= num_rows:
        return np.arange(num_rows)
    starts = np.arange(num_wanted + 1) * num_rows // num_wanted
    luck = np.random.default_rng(seed).random(num_wanted)
    return starts[:-1] + (luck * np.diff(starts)).astype(np.int64)


def training_rows(
    num_rows: int, num_clusters: int, *, max_points_per_centroid: int | None, seed: int
) -> Int64[np.ndarray, "r"]:
    """The rows that k-means is trained on, out of `num_rows`."""
    wanted = num_rows if max_points_per_centroid is None else num_clusters * max_points_per_centroid
    return sample_rows(num_rows, wanted, seed=seed)


def seeding_rows(num_rows: int, num_clusters: int, *, seed: int) -> Int64[np.ndarray, "r"]:
    """The rows among which k-means++ draws its seeds."""
    return sample_rows(num_rows, num_seeding_rows(num_rows, num_clusters), seed=seed)


def num_rounds(num_clusters: int) -> int:
    """How many rounds k-means++ takes where every candidate is accepted; it takes a few more."""
    rounds = num_chosen = 0
    while num_chosen < num_clusters:
        num_chosen += batch_size(num_chosen, num_clusters)
        rounds += 1
    return rounds


def batch_size(num_chosen: int, num_clusters: int) -> int:
    """Candidates of a round: no more than there are seeds, so that few are too near one another."""
    share = min(max(num_clusters // _BATCH_SHARE, _MIN_BATCH), _MAX_BATCH)
    return min(num_clusters - num_chosen, max(num_chosen, 1), share)


@dataclass(frozen=True)
class Evaluation:
    """What an iteration's sums say of the centroids that it assigned to."""

    inertia: float
    num_empty: int  # clusters that hold no vector


def is_finished(history: Sequence[Evaluation], *, iterations: int, tolerance: float) -> bool:
    """Whether the centroids that were evaluated last are the result."""
    if len(history) < 2:
        return False
    before, now = history[-2:]
    # What was re-seeded has not settled yet.
    is_settled = before.num_empty == 0 and before.inertia - now.inertia <= tolerance * before.inertia
    return is_settled or len(history) > iterations
