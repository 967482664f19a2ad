"""The work of k-means++ in steps: vectors are gathered, seeds drawn, and distances brought up to date."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float16, Int64

from curation import storage
from curation.cluster.kmeans import seeding_rows
from curation.cluster.seeding import draw_seeds, nearest_distances
from pipelines.engine.step import Attempt, FileRef, Work
from pipelines.rows.parts import gather_vectors, read_array
from pipelines.stages.cluster.seeding_tasks import (
    DISTANCE,
    SEEDS,
    VECTORS,
    DistancesTask,
    DrawTask,
    SampleTask,
)
from pipelines.stages.cluster.training_set import KMeansSettings


def load_samples(settings: KMeansSettings) -> Work[SampleTask]:
    """The vectors of a group of the sample."""

    def work(attempt: Attempt[SampleTask]) -> dict[str, Any]:
        task, rows = attempt.task, read_array(attempt.task.rows)
        sample = seeding_rows(len(rows), settings.num_clusters, seed=settings.seed)
        mine = np.asarray(rows[sample[task.cut.start : task.cut.stop]])
        vectors = gather_vectors(task.parts, "embeddings", mine)
        storage.write_vectors(attempt.out / VECTORS, vectors)
        return {"num_rows": len(vectors)}

    return work


def load_draw(settings: KMeansSettings) -> Work[DrawTask]:
    """The seeds of a round."""

    def work(attempt: Attempt[DrawTask]) -> dict[str, Any]:
        made_from = attempt.task.made_from
        assert made_from is not None, "seeds are to be drawn, and it is not said from what"
        starts = np.cumsum([0, *made_from.sizes])
        distances = [read_array(file) for file in made_from.distances]
        drawn = draw_seeds(
            np.concatenate(distances) if distances else np.ones(starts[-1]),
            lambda places: _vectors_at(places, made_from.samples, starts),
            num_chosen=made_from.num_drawn,
            num_clusters=settings.num_clusters,
            seed=settings.seed,
        )
        storage.write_vectors(attempt.out / SEEDS, drawn)
        return {"num_drawn": len(drawn)}

    return work


def _vectors_at(
    places: Int64[np.ndarray, " b"], samples: Sequence[FileRef], starts: Int64[np.ndarray, " g"]
) -> Float16[np.ndarray, "b d"]:
    """The vectors at some places of the sample; each file that holds one is opened once."""
    group = np.searchsorted(starts, places, side="right") - 1
    numbers = np.unique(group) if len(group) else np.zeros(1, np.int64)
    found: dict[int, np.ndarray] = {}
    for number in numbers.tolist():
        mine = places[group == number] - starts[number]
        found[number] = np.asarray(read_array(samples[number])[mine])
    vectors = np.empty((len(places), found[int(numbers[0])].shape[1]), np.float16)
    for number, own in found.items():
        vectors[group == number] = own
    return vectors


def load_distances(settings: KMeansSettings) -> Work[DistancesTask]:
    """The distances of a group from the nearest of all seeds so far."""

    def work(attempt: Attempt[DistancesTask]) -> dict[str, Any]:
        made_from = attempt.task.made_from
        assert made_from is not None, "distances are asked for, and it is not said from what"
        vectors = read_array(made_from.vectors)
        seeds = np.concatenate([read_array(file) for file in made_from.seeds])
        distance = nearest_distances(vectors, seeds, device=settings.config.device)
        if made_from.before is not None:
            distance = np.minimum(distance, read_array(made_from.before))
        storage.write_vectors(attempt.out / DISTANCE, distance)
        return {"num_rows": len(vectors)}

    return work
