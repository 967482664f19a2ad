"""When k-means is done. Apart from the code that clusters, which takes seconds to import."""

from collections.abc import Sequence
from dataclasses import dataclass


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
