"""Flat clusters are split into leaves: their rows, the leaves of a group of them, and those of all."""

from pathlib import Path
from typing import Any

import numpy as np

from curation import storage
from curation.cluster.hierarchy import split_clusters
from curation.cluster.resampling import seed_of
from pipelines.engine.step import Attempt, NoSettings, Work
from pipelines.rows.parts import gather_vectors, read_array, roles
from pipelines.stages.cluster.leaves_tasks import (
    LeavesFile,
    LeavesTask,
    MembersFile,
    MembersTask,
    SplitsSettings,
    SplitsTask,
)


def load_members(_settings: NoSettings) -> Work[MembersTask]:
    """Rows of the pool, cluster by cluster."""

    def work(attempt: Attempt[MembersTask]) -> dict[str, Any]:
        cluster = np.asarray(read_array(attempt.task.cluster))
        pool = np.flatnonzero((cluster >= 0) & roles(attempt.task.parts, "uncurated"))
        rows = pool[np.argsort(cluster[pool], kind="stable")]
        starts = np.cumsum(np.bincount(cluster[pool] + 1, minlength=1))
        storage.write_vectors(attempt.out / MembersFile.ROWS, rows)
        storage.write_vectors(attempt.out / MembersFile.STARTS, starts)
        return {"num_clustered": len(rows)}

    return work


def load_splits(settings: SplitsSettings) -> Work[SplitsTask]:
    """The leaves of a group of clusters."""

    def work(attempt: Attempt[SplitsTask]) -> dict[str, Any]:
        task, clusters = attempt.task, attempt.task.clusters
        starts = np.asarray(read_array(task.starts))[clusters.start : clusters.stop + 1]
        rows = np.asarray(read_array(task.rows)[starts[0] : starts[-1]])
        order = np.argsort(rows)
        vectors = gather_vectors(task.parts, "embeddings", rows[order])[np.argsort(order)]
        split = split_clusters(
            vectors,
            starts - starts[0],
            splits=settings.splits,
            iterations=settings.iterations,
            seeds=[seed_of(settings.seed, 0, cluster) for cluster in clusters],
        )
        _write(attempt.out, split.leaf, split.score, split.centroids)
        return {"num_rows": len(rows), "num_leaves": len(split.centroids)}

    return work


def load_leaves(_settings: NoSettings) -> Work[LeavesTask]:
    """The leaves of all groups, numbered through, by global row."""

    def work(attempt: Attempt[LeavesTask]) -> dict[str, Any]:
        task, rows = attempt.task, read_array(attempt.task.rows)
        leaf, score = np.full(task.num_rows, -1, np.int32), np.zeros(task.num_rows, np.float32)
        centroids = [np.empty((0, task.dim), np.float32)]
        num_leaves = start = 0
        for group in task.groups:
            local = read_array(group.leaf)
            mine = rows[start : start + len(local)]
            leaf[mine], score[mine] = local + num_leaves, read_array(group.score)
            centroids.append(np.asarray(read_array(group.centroids)))
            num_leaves += len(centroids[-1])
            start += len(local)
        _write(attempt.out, leaf, score, np.concatenate(centroids))
        return {"num_leaves": num_leaves}

    return work


def _write(out: Path, *arrays: np.ndarray) -> None:
    for name, array in zip(LeavesFile, arrays, strict=True):
        storage.write_vectors(out / name, array)
