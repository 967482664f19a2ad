"""Rows are given to clusters: which rows, in one task from end to end, or to centroids that are there."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int32, Int64

from curation import storage
from curation.cluster.kmeans import assign, kmeans, training_rows
from pipelines.engine.step import Attempt, Work
from pipelines.rows.parts import Part, gather_vectors, read_array, roles, vector_blocks
from pipelines.stages.cluster.cluster_tasks import (
    ClusterFile,
    ClusterRowsFile,
    ClusterRowsTask,
    ClusterTask,
    LabelsTask,
    MadeInSteps,
)
from pipelines.stages.cluster.training_set import ClusterSettings
from pipelines.stages.copies.survivors import survivors


@dataclass(frozen=True)
class _Rows:
    """Which rows there are to cluster, and into how many clusters."""

    alive: Bool[np.ndarray, " n"]
    num_candidates: int  # rows to train on, before a sample of them is taken
    trained_on: Int64[np.ndarray, " m"]
    num_clusters: int


def _choose_rows(task: ClusterTask | ClusterRowsTask, settings: ClusterSettings) -> _Rows:
    rule = settings.config
    alive = survivors(task.parts, task.copies, task.leaks)
    pool = np.flatnonzero(alive & roles(task.parts, "uncurated"))
    candidates = pool if len(pool) else np.flatnonzero(alive)
    k = rule.clusters_of(len(candidates))
    chosen = training_rows(
        len(candidates), k, max_points_per_centroid=rule.max_points_per_centroid, seed=settings.seed
    )
    return _Rows(alive, len(candidates), candidates[chosen], k)


def load_rows(settings: ClusterSettings) -> Work[ClusterRowsTask]:
    """Which rows survive, and which of them the centroids come from."""

    def work(attempt: Attempt[ClusterRowsTask]) -> dict[str, Any]:
        rows = _choose_rows(attempt.task, settings)
        storage.write_vectors(attempt.out / ClusterRowsFile.ALIVE, rows.alive)
        storage.write_vectors(attempt.out / ClusterRowsFile.TRAINED_ON, rows.trained_on)
        ends = np.searchsorted(rows.trained_on, [part.offset + part.num_rows for part in attempt.task.parts])
        return {
            "num_clusters": rows.num_clusters,
            "num_trained_on": rows.num_candidates,
            "part_rows": np.diff(ends, prepend=0).tolist(),
        }

    return work


def load_labels(settings: ClusterSettings) -> Work[LabelsTask]:
    """The rows of a group, given to centroids that are there."""

    def work(attempt: Attempt[LabelsTask]) -> dict[str, Any]:
        task, parts = attempt.task, attempt.task.parts
        first, last = parts[0].offset, parts[-1].offset + parts[-1].num_rows
        alive = np.asarray(read_array(task.alive)[first:last])
        centroids = np.array(read_array(task.centroids))
        label, score = assign_rows(parts, alive, centroids, device=settings.config.device)
        storage.write_vectors(attempt.out / ClusterFile.CLUSTER, label)
        storage.write_vectors(attempt.out / ClusterFile.SCORE, score)
        return {"num_rows": int(alive.sum())}

    return work


def load_clusters(settings: ClusterSettings) -> Work[ClusterTask]:
    """Clusters from end to end, or put together of what steps have made."""

    def work(attempt: Attempt[ClusterTask]) -> dict[str, Any]:
        made = attempt.task.made
        return _cluster_at_once(attempt, settings) if made is None else _put_together(attempt.out, made)

    return work


def _put_together(out: Path, made: MadeInSteps) -> dict[str, Any]:
    label, score = (
        np.concatenate([read_array(file) for file in files]) for files in (made.cluster, made.score)
    )
    alive, centroids = (np.asarray(read_array(file)) for file in (made.alive, made.fitted.centroids))
    arrays = (alive, label, score, centroids)
    return _write(out, arrays, inertia=made.fitted.inertia, num_trained_on=made.num_trained_on)


def _cluster_at_once(attempt: Attempt[ClusterTask], settings: ClusterSettings) -> dict[str, Any]:
    parts, rule = attempt.task.parts, settings.config
    rows = _choose_rows(attempt.task, settings)
    inertia: list[float] = []
    if rows.num_clusters:
        found = kmeans(
            [partial(_vectors_of, part, rows.trained_on) for part in _with_rows(parts, rows.trained_on)],
            num_clusters=rows.num_clusters,
            seed=settings.seed,
            iterations=rule.iterations,
            tolerance=rule.tolerance,
        )
        centroids, inertia = found.centroids, found.inertia.tolist()
    else:
        centroids = gather_vectors(parts, "embeddings", rows.trained_on).astype(np.float32)
    label, score = assign_rows(parts, rows.alive, centroids)
    arrays = (rows.alive, label, score, centroids)
    return _write(attempt.out, arrays, inertia=inertia, num_trained_on=rows.num_candidates)


def assign_rows(
    parts: Sequence[Part],
    alive: Bool[np.ndarray, " n"],
    centroids: Float32[np.ndarray, "k d"],
    *,
    device: Literal["cpu", "cuda"] = "cpu",
) -> tuple[Int32[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """Cluster and closeness of the rows of consecutive parts; -1 and 0 where one is not alive."""
    label, score = np.full(len(alive), -1, np.int32), np.zeros(len(alive), np.float32)
    first = parts[0].offset if parts else 0
    for rows, vectors in vector_blocks(parts, "embeddings", np.flatnonzero(alive) + first):
        label[rows - first], score[rows - first] = assign(vectors, centroids, device=device)
    return label, score


def _write(
    out: Path, arrays: Sequence[np.ndarray], *, inertia: list[float], num_trained_on: int
) -> dict[str, Any]:
    for name, array in zip(ClusterFile, arrays, strict=True):
        storage.write_vectors(out / name, array)
    return {"num_clusters": len(arrays[-1]), "inertia": inertia, "num_trained_on": num_trained_on}


def _with_rows(parts: Sequence[Part], rows: Int64[np.ndarray, " m"]) -> list[Part]:
    bounds = [np.searchsorted(rows, [part.offset, part.offset + part.num_rows]) for part in parts]
    return [part for part, (start, stop) in zip(parts, bounds, strict=True) if stop > start]


def _vectors_of(part: Part, rows: Int64[np.ndarray, " m"]) -> Float16[np.ndarray, "k d"]:
    return gather_vectors([part], "embeddings", rows)
