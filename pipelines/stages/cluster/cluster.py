"""cluster: k-means over the surviving pool images; curated images are assigned to the same clusters.

What fits one group of rows and takes minutes is clustered by one task, in memory: of 3,600 images in steps it
would cost 1.4 times the CPU, and a level above them ten times. A larger pool goes through inner steps, which
give the same bytes: which rows there are, k-means, labels.

The work imports what it computes with where it is called: it brings torch, for which no dry run waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float16, Int64

from curation import storage
from curation.cluster.schedule import training_rows
from pipelines.config.run_config import RunConfig
from pipelines.engine.digest import Unhashed
from pipelines.engine.inner import InnerSteps, run_in_steps
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, Facts, FileRef, Item, Step, Work
from pipelines.rows.groups import make_groups
from pipelines.rows.parts import Part, PlacesOf, gather_vectors, read_array, roles
from pipelines.stages.cluster.kmeans import Fitted, fit_in_steps
from pipelines.stages.cluster.labels import (
    GroupLabels,
    LabelsTask,
    assign_rows,
    joined,
    label_in_steps,
    labels_step,
)
from pipelines.stages.cluster.training_set import ClusterSettings, KMeansSettings, Training
from pipelines.stages.copies.decontaminate import Leaks, survivors
from pipelines.stages.copies.dedup import Copies


class ClusterFile(StrEnum):
    """What cluster puts out."""

    ALIVE = "alive.npy"
    CLUSTER = "cluster.npy"
    SCORE = "score.npy"
    CENTROIDS = "centroids.npy"


class ClusterRowsFile(StrEnum):
    """What is known before there are clusters."""

    ALIVE = "alive.npy"
    TRAINED_ON = "trained_on.npy"


@dataclass(frozen=True)
class MadeInSteps:
    """What inner steps have made for `cluster` to put together."""

    alive: FileRef
    fitted: Fitted
    labels: tuple[GroupLabels, ...]  # of all parts
    num_trained_on: int


@dataclass(frozen=True)
class ClusterTask:
    """The vectors of what survives."""

    parts: Annotated[tuple[Part, ...], PlacesOf("described", "verdicts", "embeddings")]
    copies: FileRef
    leaks: FileRef
    made: Annotated[MadeInSteps | None, Unhashed("the same bytes, of steps or at once")] = None


@dataclass(frozen=True)
class ClusterRowsTask:
    """What tells which rows survive."""

    parts: Annotated[tuple[Part, ...], PlacesOf("described", "verdicts")]
    copies: FileRef
    leaks: FileRef


@dataclass(frozen=True)
class Clusters:
    """Centroids, and for every row its survival, its cluster (-1: none) and its closeness to the centroid."""

    alive: FileRef
    cluster: FileRef
    score: FileRef
    centroids: FileRef
    num_clusters: int
    digest: str


def cluster(
    runner: Runner, config: RunConfig, parts: Sequence[Part], copies: Copies, leaks: Leaks
) -> Clusters:
    """Find the concepts of the pool."""
    rule, threads = config.cluster, config.executor.threads
    step = Step("cluster", 3, ClusterSettings(rule, config.seed), load_clusters, "cluster", threads)
    item = Item(ClusterTask(tuple(parts), copies.copies, leaks.leaks))
    num_rows = sum(part.num_rows for part in parts)
    most = rule.clusters_of(num_rows)  # fewer where few rows survive

    def make(inner: InnerSteps) -> Item[ClusterTask]:
        return replace(item, task=replace(item.task, made=_make_in_steps(inner, step, item.task)))

    receipt = run_in_steps(runner, step, item, make if rule.is_large(num_rows, most) else None)
    alive, label, score, centroids = (receipt.file(runner.run_dir, name) for name in ClusterFile)
    return Clusters(alive, label, score, centroids, receipt.facts["num_clusters"], receipt.digest)


def _make_in_steps(
    inner: InnerSteps, step: Step[ClusterSettings, ClusterTask], task: ClusterTask
) -> MadeInSteps | None:
    """All that `cluster` puts together; None where fewer rows survive than are worth it, or none."""
    settings, threads = step.settings, step.threads
    rule, part_rows = settings.config, [part.num_rows for part in task.parts]
    rows_step = Step("cluster_rows", 1, settings, load_rows, "cluster", threads)
    [rows] = inner.run(rows_step, [Item(ClusterRowsTask(task.parts, task.copies, task.leaks))])
    k = rows.facts["num_clusters"]
    if not k or not rule.is_large(sum(part_rows), k):
        return None
    alive, trained_on = (rows.file(inner.runner.run_dir, name) for name in ClusterRowsFile)
    training = Training.on(task.parts, rows.facts["part_rows"], trained_on)
    fitted = fit_in_steps(inner, training, KMeansSettings(rule, settings.seed, k), threads=threads)
    groups = make_groups(task.parts, part_rows, rows=rule.rows_of_group(k))
    to_label = [LabelsTask(group, alive, fitted.centroids) for group in groups]
    labels = label_in_steps(inner, labels_step("cluster_labels", settings, threads=threads), to_label)
    return MadeInSteps(alive, fitted, labels, rows.facts["num_trained_on"])


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

    def work(attempt: Attempt[ClusterRowsTask]) -> Facts:
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


def load_clusters(settings: ClusterSettings) -> Work[ClusterTask]:
    """Clusters from end to end, or put together of what steps have made."""

    def work(attempt: Attempt[ClusterTask]) -> Facts:
        made = attempt.task.made
        return _cluster_at_once(attempt, settings) if made is None else _put_together(attempt.out, made)

    return work


def _put_together(out: Path, made: MadeInSteps) -> Facts:
    alive, centroids = (np.asarray(read_array(file)) for file in (made.alive, made.fitted.centroids))
    arrays = (alive, *joined(made.labels), centroids)
    return _write(out, arrays, inertia=made.fitted.inertia, num_trained_on=made.num_trained_on)


def _cluster_at_once(attempt: Attempt[ClusterTask], settings: ClusterSettings) -> Facts:
    from curation.cluster.kmeans import kmeans

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
    arrays = (rows.alive, *assign_rows(parts, rows.alive, centroids), centroids)
    return _write(attempt.out, arrays, inertia=inertia, num_trained_on=rows.num_candidates)


def _write(out: Path, arrays: Sequence[np.ndarray], *, inertia: list[float], num_trained_on: int) -> Facts:
    for name, array in zip(ClusterFile, arrays, strict=True):
        storage.write_vectors(out / name, array)
    return {"num_clusters": len(arrays[-1]), "inertia": inertia, "num_trained_on": num_trained_on}


def _with_rows(parts: Sequence[Part], rows: Int64[np.ndarray, " m"]) -> list[Part]:
    bounds = [np.searchsorted(rows, [part.offset, part.offset + part.num_rows]) for part in parts]
    return [part for part, (start, stop) in zip(parts, bounds, strict=True) if stop > start]


def _vectors_of(part: Part, rows: Int64[np.ndarray, " m"]) -> Float16[np.ndarray, "k d"]:
    return gather_vectors([part], "embeddings", rows)
