"""Trains the cells in which near vectors meet (`curation.search.cells`): a short k-means on a sample."""

import numpy as np
from jaxtyping import Float16

from curation.cluster.kmeans import update_centroids
from curation.cluster.schedule import sample_rows
from curation.cluster.seeding import to_unit_length
from curation.cluster.sums import RunningSums
from curation.errors import ConfigError
from curation.search.cells import nearest_cells
from curation.search.cells_config import MAX_CELLS

_ITERATIONS = 5  # with twice as many, the probes that 99 % of pairs need do not change


def train_cells(
    sample: Float16[np.ndarray, "s d"], num_cells: int, *, seed: int
) -> Float16[np.ndarray, "num_cells d"]:
    """Train centroids by spherical k-means, and number them so that near cells get near numbers.

    Args:
        sample: fp16 (s, d), unit vectors, no zeros; 64 a cell are plenty.
        num_cells: cells, at most `MAX_CELLS`.
        seed: of the first centroids.

    Returns:
        fp16 (num_cells, d) of unit length. The same for a sample and seed on every machine.

    Raises:
        ConfigError: more cells than vectors, or than can be numbered.
    """
    if not 1 <= num_cells <= min(len(sample), MAX_CELLS):
        raise ConfigError(
            "The number of cells does not fit the vectors to train on",
            got=f"{num_cells} cells for {len(sample)} vectors",
            expected=f"1 to {min(len(sample), MAX_CELLS)}",
            remedy="Lower num_cells, or leave it null to have it follow from the number of rows",
        )
    centroids = _trained(sample, num_cells, seed=seed)
    if num_cells < 4:
        return centroids
    # Cells of one coarser cell come one after another, so that a run of cells has few visitors from outside.
    coarse = _trained(centroids, round(num_cells**0.5), seed=seed)
    return centroids[np.argsort(nearest_cells(centroids, coarse, num_probes=1)[:, 0], kind="stable")]


def _trained(
    sample: Float16[np.ndarray, "s d"], num_cells: int, *, seed: int
) -> Float16[np.ndarray, "num_cells d"]:
    """From rows of the sample, not from k-means++, whose draws would cost more than all iterations."""
    start = sample[sample_rows(len(sample), num_cells, seed=seed)]
    centroids = to_unit_length(start.astype(np.float64))
    running = RunningSums(lambda: [sample], len(sample))
    for _ in range(_ITERATIONS):
        total = running.under(centroids)
        centroids = update_centroids(centroids, total.sums, counts=total.counts)
    return centroids.astype(np.float16)
