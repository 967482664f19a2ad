"""The points of a level are clustered: in one task, or as steps of its own need them."""

from typing import Any

import numpy as np

from curation import storage
from curation.cluster.hierarchy import Level, build_level
from curation.cluster.resampling import closest_points
from pipelines.engine.step import Attempt, Work
from pipelines.rows.parts import read_array
from pipelines.stages.cluster.cluster_tasks import ClusterFile
from pipelines.stages.cluster.level_tasks import (
    EVERY,
    LevelFile,
    LevelLabelsSettings,
    LevelLabelsTask,
    LevelSettings,
    LevelStateFile,
    LevelStateSettings,
    LevelStateTask,
    LevelTask,
    PointsSettings,
    PointsTask,
    points_name,
)
from pipelines.stages.cluster.rows_to_clusters import assign_rows


def load_points(settings: PointsSettings) -> Work[PointsTask]:
    """The centroids of the level below as vectors like those of images, in files of so many rows."""

    def work(attempt: Attempt[PointsTask]) -> dict[str, Any]:
        below = read_array(attempt.task.below)
        part_rows = []
        for number, start in enumerate(range(0, len(below), settings.rows)):
            points = np.asarray(below[start : start + settings.rows]).astype(np.float16)
            storage.write_vectors(attempt.out / points_name(number), points)
            part_rows.append(len(points))
        storage.write_vectors(attempt.out / EVERY, np.arange(len(below)))
        return {"part_rows": part_rows}

    return work


def load_labels(settings: LevelLabelsSettings) -> Work[LevelLabelsTask]:
    """The points of a group, given to the centroids of a clustering."""

    def work(attempt: Attempt[LevelLabelsTask]) -> dict[str, Any]:
        parts = attempt.task.parts
        centroids = np.array(read_array(attempt.task.centroids))
        every = np.ones(sum(part.num_rows for part in parts), bool)
        cluster, score = assign_rows(parts, every, centroids, device=settings.device)
        storage.write_vectors(attempt.out / ClusterFile.CLUSTER, cluster)
        storage.write_vectors(attempt.out / ClusterFile.SCORE, score)
        return {"num_points": len(every)}

    return work


def load_state(settings: LevelStateSettings) -> Work[LevelStateTask]:
    """What a clustering has made of all points, and which of them the next is made on."""

    def work(attempt: Attempt[LevelStateTask]) -> dict[str, Any]:
        made_from = attempt.task.made_from
        assert made_from is not None, "a state is to be made, and it is not said from what"
        parent = np.concatenate([read_array(group.cluster) for group in made_from.groups])
        score = np.concatenate([read_array(group.score) for group in made_from.groups])
        kept = closest_points(parent, score, closest=settings.closest)
        centroids = np.asarray(read_array(made_from.centroids))
        storage.write_vectors(attempt.out / LevelStateFile.CENTROIDS, centroids)
        storage.write_vectors(attempt.out / LevelStateFile.PARENT, parent)
        storage.write_vectors(attempt.out / LevelStateFile.KEPT, kept)
        ends = np.searchsorted(kept, made_from.part_ends)
        return {"part_rows": np.diff(ends, prepend=0).tolist()}

    return work


def load_level(settings: LevelSettings) -> Work[LevelTask]:
    """A level from end to end, or what steps have made of it."""

    def work(attempt: Attempt[LevelTask]) -> dict[str, Any]:
        if made := attempt.task.made:
            found = Level(*(np.asarray(read_array(file)) for file in (made.centroids, made.parent)))
        else:
            found = build_level(
                np.asarray(read_array(attempt.task.below)),
                settings.level,
                resampling_steps=settings.resampling_steps,
                iterations=settings.iterations,
                seed=settings.seed,
            )
        storage.write_vectors(attempt.out / LevelFile.CENTROIDS, found.centroids)
        storage.write_vectors(attempt.out / LevelFile.PARENT, found.parent)
        return {"num_clusters": len(found.centroids), "num_below": len(found.parent)}

    return work
