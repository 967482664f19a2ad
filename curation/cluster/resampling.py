"""What stands between the clusterings of a hierarchy. Apart from these, which take seconds to import."""

import numpy as np
from jaxtyping import Float32, Int32, Int64

from curation.errors import ConfigError
from curation.runs import place_in_run


def check_level(num_below: int, num_clusters: int) -> None:
    """See that a level has fewer clusters than the level below.

    Raises:
        ConfigError: it has not.
    """
    if num_below <= num_clusters:
        raise ConfigError(
            "A level of the hierarchy has no fewer clusters than the level below it",
            got=f"num_clusters={num_clusters} above {num_below} clusters",
            expected=f"1 to {num_below - 1}",
            remedy="Lower hierarchy.levels, or raise cluster.num_clusters or hierarchy.splits",
        )


def closest_points(
    cluster: Int32[np.ndarray, "n"], score: Float32[np.ndarray, "n"], *, closest: int
) -> Int64[np.ndarray, "c"]:
    """The points nearest to the centroid of each cluster: a resampling.

    Args:
        cluster: of each point.
        score: inner product of each point with its centroid.
        closest: points that a cluster keeps at most, the lower of equals first.

    Returns:
        Positions of the points kept, ascending.

    Source: arXiv:2405.15613, §3, "closest" resampling.
    """
    order = np.lexsort((-score, cluster))
    return np.sort(order[place_in_run(cluster[order]) < closest])


def seed_of(*numbers: int) -> int:
    """A seed for one of several clusterings: other draws for each, the same for the same numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
