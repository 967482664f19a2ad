"""The work of k-means in steps: sums of a group, and the centroids that follow from all of them."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from curation import storage
from curation.cluster.gpu import sum_on_gpu
from curation.cluster.kmeans import evaluate, seeding_rows, update_centroids
from curation.cluster.seeding import centroids_of, seed_centroids
from curation.cluster.sums import PartSums, add_sums, sum_arrays
from pipelines.engine.step import Attempt, Work
from pipelines.rows.parts import gather_vectors, read_array, vector_blocks
from pipelines.stages.cluster.kmeans_tasks import (
    CENTROIDS,
    Drawn,
    Sampled,
    StateTask,
    Summed,
    SumsFile,
    SumsTask,
)
from pipelines.stages.cluster.training_set import KMeansSettings


def load_state(settings: KMeansSettings) -> Work[StateTask]:
    """The seeds, or the centroids that follow from the sums of all groups."""

    def work(attempt: Attempt[StateTask]) -> dict[str, Any]:
        made_from = attempt.task.made_from
        assert made_from is not None, "a state is to be made, and it is not said from what"
        if isinstance(made_from, Summed):
            return _update(attempt.out, made_from)
        _write(attempt.out, {CENTROIDS: _seeds(made_from, settings)})
        return {"history": []}

    return work


def _seeds(made_from: Sampled | Drawn, settings: KMeansSettings) -> Float32[np.ndarray, "k d"]:
    k, seed = settings.num_clusters, settings.seed
    if isinstance(made_from, Drawn):
        return centroids_of([read_array(file) for file in made_from.seeds], k)
    rows = read_array(made_from.rows)
    sample = np.asarray(rows[seeding_rows(len(rows), k, seed=seed)])
    return seed_centroids(gather_vectors(made_from.parts, "embeddings", sample), k, seed=seed)


def _update(out: Path, made_from: Summed) -> dict[str, Any]:
    centroids = np.array(read_array(made_from.centroids))
    total = add_sums(
        PartSums(sums=np.asarray(read_array(group.sums)), counts=np.asarray(read_array(group.counts)))
        for group in made_from.groups
    )
    now = evaluate(total, centroids)
    _write(out, {CENTROIDS: update_centroids(centroids, total.sums, counts=total.counts)})
    return {"history": [asdict(one) for one in (*made_from.history, now)]}


def load_sums(settings: KMeansSettings) -> Work[SumsTask]:
    """The sums of a group under the centroids of a state."""
    add_up = sum_on_gpu if settings.config.device == "cuda" else sum_arrays

    def work(attempt: Attempt[SumsTask]) -> dict[str, Any]:
        task = attempt.task
        blocks = vector_blocks(task.parts, "embeddings", read_array(task.rows))
        total = add_up((vectors for _, vectors in blocks), np.array(read_array(task.centroids)))
        _write(attempt.out, {SumsFile.SUMS: total.sums, SumsFile.COUNTS: total.counts})
        return {"num_rows": int(total.counts.sum())}

    return work


def _write(out: Path, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        storage.write_vectors(out / name, array)
