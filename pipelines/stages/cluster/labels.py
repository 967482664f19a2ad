"""Rows are given to centroids that are there, a group of parts at a time.

The work imports what it computes with where it is called: it brings torch, for which no dry run waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int32

from curation import storage
from pipelines.engine.digest import Unhashed
from pipelines.engine.inner import InnerSteps
from pipelines.engine.step import Attempt, Facts, FileRef, Item, Step, Work
from pipelines.rows.parts import Part, PlacesOf, read_array, vector_blocks
from pipelines.stages.cluster.training_set import ClusterSettings


class LabelsFile(StrEnum):
    """What a group puts out."""

    CLUSTER = "cluster.npy"
    SCORE = "score.npy"


@dataclass(frozen=True)
class LabelsSettings:
    """Where rows are assigned."""

    device: Annotated[Literal["cpu", "cuda"], Unhashed("the same bytes on any")]


@dataclass(frozen=True)
class LabelsTask:
    """The vectors of a group of parts, each to be given to the nearest centroid."""

    parts: Annotated[tuple[Part, ...], PlacesOf("embeddings")]
    alive: FileRef | None  # of all parts; None: every row is
    centroids: FileRef


@dataclass(frozen=True)
class GroupLabels:
    """The clusters of a group of rows, and their closeness."""

    cluster: FileRef
    score: FileRef


def label_in_steps(
    inner: InnerSteps, step: Step[LabelsSettings, LabelsTask], tasks: Sequence[LabelsTask]
) -> tuple[GroupLabels, ...]:
    """The labels of every group."""
    found = inner.run_shown(step, [Item(task) for task in tasks])
    files = zip(*(inner.files(found, name) for name in LabelsFile), strict=True)
    return tuple(GroupLabels(*two) for two in files)


def labels_step(name: str, settings: ClusterSettings, *, threads: int) -> Step[LabelsSettings, LabelsTask]:
    """The step that labels groups."""
    device = LabelsSettings(settings.config.device)
    return Step(name, 1, device, load_labels, "cluster", threads, num_gpus=settings.num_gpus)


def joined(groups: Sequence[GroupLabels]) -> tuple[Int32[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """Cluster and closeness of the rows of all groups."""
    cluster = np.concatenate([read_array(group.cluster) for group in groups])
    return cluster, np.concatenate([read_array(group.score) for group in groups])


def load_labels(settings: LabelsSettings) -> Work[LabelsTask]:
    """The rows of a group, given to centroids that are there."""

    def work(attempt: Attempt[LabelsTask]) -> Facts:
        task, parts = attempt.task, attempt.task.parts
        first, last = parts[0].offset, parts[-1].offset + parts[-1].num_rows
        alive = np.asarray(read_array(task.alive)[first:last]) if task.alive else np.ones(last - first, bool)
        labels = assign_rows(parts, alive, np.array(read_array(task.centroids)), device=settings.device)
        for name, array in zip(LabelsFile, labels, strict=True):
            storage.write_vectors(attempt.out / name, array)
        return {"num_rows": int(alive.sum())}

    return work


def assign_rows(
    parts: Sequence[Part],
    alive: Bool[np.ndarray, " n"],
    centroids: Float32[np.ndarray, "k d"],
    *,
    device: Literal["cpu", "cuda"] = "cpu",
) -> tuple[Int32[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """Cluster and closeness of the rows of consecutive parts; -1 and 0 where one is not alive."""
    from curation.cluster.kmeans import assign

    label, score = np.full(len(alive), -1, np.int32), np.zeros(len(alive), np.float32)
    first = parts[0].offset if parts else 0
    for rows, vectors in vector_blocks(parts, "embeddings", np.flatnonzero(alive) + first):
        label[rows - first], score[rows - first] = assign(vectors, centroids, device=device)
    return label, score
