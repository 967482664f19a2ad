"""One level of a hierarchy: in one task, or in steps where its points are too many for one.

A level is clustered anew on its resampled points a number of times. In steps each of these clusterings is a
state: the centroids, the cluster of every point, and the points that the next one is made on. Its inner steps
are those of k-means, and labels. The bytes are those of `curation.cluster.hierarchy.build_level`, which does
small levels.

The work imports what it computes with where it is called: it brings torch, for which no dry run waits.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np

from curation import storage
from curation.cluster.config import ClusterConfig, LevelConfig
from curation.cluster.resampling import check_level, closest_points, seed_of
from pipelines.engine.digest import Unhashed
from pipelines.engine.inner import FOUND_BY_PLACE, InnerSteps, States, run_in_steps
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, Facts, FileRef, Item, Receipt, Step, Work
from pipelines.rows.groups import make_groups
from pipelines.rows.parts import Part, read_array
from pipelines.stages.cluster.kmeans import fit_in_steps
from pipelines.stages.cluster.labels import (
    GroupLabels,
    LabelsTask,
    joined,
    label_in_steps,
    labels_step,
)
from pipelines.stages.cluster.training_set import KMeansSettings, Training

# Points of a file. A constant: with other files, all that a level has begun would be begun anew.
POINT_ROWS = 1 << 16
EVERY = "every.npy"  # the rows of all points


class LevelFile(StrEnum):
    """What a level is."""

    CENTROIDS = "centroids.npy"
    PARENT = "parent.npy"


class LevelStateFile(StrEnum):
    """What a clustering leaves."""

    CENTROIDS = "centroids.npy"
    PARENT = "parent.npy"
    KEPT = "kept.npy"  # points of the next clustering, ascending


@dataclass(frozen=True)
class LevelSettings:
    """How a level is made."""

    level: LevelConfig
    resampling_steps: int
    iterations: int
    seed: int


@dataclass(frozen=True)
class MadeLevel:
    """A level that inner steps have made."""

    centroids: FileRef
    parent: FileRef


@dataclass(frozen=True)
class LevelTask:
    """The centroids of the level below."""

    below: FileRef
    made: Annotated[MadeLevel | None, Unhashed("the same bytes, of steps or at once")] = None


@dataclass(frozen=True)
class PointsSettings:
    """How many points a file has."""

    rows: int


@dataclass(frozen=True)
class PointsTask:
    """The centroids of the level below."""

    below: FileRef


@dataclass(frozen=True)
class LevelStateSettings:
    """How many points a resampling keeps of each cluster."""

    closest: int


@dataclass(frozen=True)
class Labelled:
    """What a clustering has made of all points."""

    centroids: FileRef
    groups: tuple[GroupLabels, ...]
    part_ends: tuple[int, ...]  # of the files of points


@dataclass(frozen=True)
class LevelStateTask:
    """What a clustering leaves for the next."""

    made_from: Annotated[Labelled | None, FOUND_BY_PLACE] = None


@dataclass(frozen=True)
class LevelPlan:
    """What one level is made of.

    Args:
        num_points: centroids of the level below.
        level: its clusters, and what a resampling keeps.
        rule: of each clustering: iterations, units of work.
        resampling_steps: clusterings after the first.
        seed: of the level.
    """

    num_points: int
    level: LevelConfig
    rule: ClusterConfig
    resampling_steps: int
    seed: int

    @property
    def is_large(self) -> bool:
        """Whether the points fill more than one group of an iteration, or the iterations take long."""
        clusterings = 1 + self.resampling_steps
        return self.rule.is_large(self.num_points, self.level.num_clusters, clusterings=clusterings)

    def clustering(self, number: int) -> KMeansSettings:
        """How the clustering of a number is done."""
        return KMeansSettings(self.rule, seed_of(self.seed, number), self.level.num_clusters)


def cluster_level(runner: Runner, plan: LevelPlan, below: FileRef, *, threads: int) -> Receipt:
    """Cluster the centroids of the level below.

    Raises:
        ConfigError: there are not more of them than clusters.
    """
    check_level(plan.num_points, plan.level.num_clusters)
    settings = LevelSettings(plan.level, plan.resampling_steps, plan.rule.iterations, plan.seed)
    step = Step("cluster_level", 3, settings, load_level, "cluster", threads)
    item = Item(LevelTask(below))

    def make(inner: InnerSteps) -> Item[LevelTask]:
        return replace(item, task=replace(item.task, made=_make_in_steps(inner, plan, below, threads)))

    return run_in_steps(runner, step, item, make if plan.is_large else None)


def _make_in_steps(inner: InnerSteps, plan: LevelPlan, below: FileRef, threads: int) -> MadeLevel:
    run_dir, k = inner.runner.run_dir, plan.level.num_clusters
    points_step = Step("level_points", 1, PointsSettings(POINT_ROWS), load_points, "cluster")
    [points] = inner.run(points_step, [Item(PointsTask(below))])
    parts = _parts(points, run_dir)
    every, part_rows = points.file(run_dir, EVERY), [part.num_rows for part in parts]
    groups = make_groups(parts, part_rows, rows=plan.rule.rows_of_group(k))
    closest = LevelStateSettings(plan.level.num_closest(plan.num_points))
    step = Step("level_states", 3, closest, load_state, "cluster")
    states = States(inner, step, Item(LevelStateTask()), keep=1)

    def cluster_again(inside: InnerSteps) -> Item[LevelStateTask]:
        """Cluster all points, or those that the state before kept."""
        training, settings = Training.on(parts, part_rows, every), plan.clustering(states.number + 1)
        for before in states.kept:
            kept = before.file(run_dir, LevelStateFile.KEPT)
            training = Training.on(parts, before.facts["part_rows"], kept)
        fitted = fit_in_steps(inside, training, settings, threads=threads)
        to_label = [LabelsTask(group, None, fitted.centroids) for group in groups]
        labels = label_in_steps(inside, labels_step("level_labels", settings, threads=threads), to_label)
        ends = tuple(part.offset + part.num_rows for part in parts)
        return Item(LevelStateTask(Labelled(fitted.centroids, labels, ends)))

    def is_last() -> bool:
        """Also where clusters came out empty, and what is left cannot fill so many again."""
        too_few = any(sum(state.facts["part_rows"]) < k for state in states.kept)
        return states.number == plan.resampling_steps or too_few

    while not is_last():
        states.add(cluster_again)
    [last] = states.kept
    return MadeLevel(*(last.file(run_dir, name) for name in LevelFile))


def _parts(points: Receipt, run_dir: str) -> tuple[Part, ...]:
    """Points as parts; nothing but their vectors is asked for."""
    parts: list[Part] = []
    offset = 0
    for number, num_rows in enumerate(points.facts["part_rows"]):
        file = points.file(run_dir, points_name(number))
        parts.append(Part(number, "", "uncurated", offset, num_rows, images=file, embeddings=file))
        offset += num_rows
    return tuple(parts)


def points_name(number: int) -> str:
    """The file of points of one number."""
    return f"points-{number:06d}.npy"


def load_points(settings: PointsSettings) -> Work[PointsTask]:
    """The centroids of the level below as vectors like those of images, in files of so many rows."""

    def work(attempt: Attempt[PointsTask]) -> Facts:
        below = read_array(attempt.task.below)
        part_rows = []
        for number, start in enumerate(range(0, len(below), settings.rows)):
            points = np.asarray(below[start : start + settings.rows]).astype(np.float16)
            storage.write_vectors(attempt.out / points_name(number), points)
            part_rows.append(len(points))
        storage.write_vectors(attempt.out / EVERY, np.arange(len(below)))
        return {"part_rows": part_rows}

    return work


def load_state(settings: LevelStateSettings) -> Work[LevelStateTask]:
    """What a clustering has made of all points, and which of them the next is made on."""

    def work(attempt: Attempt[LevelStateTask]) -> Facts:
        made_from = attempt.task.made_from
        assert made_from is not None, "a state is to be made, and it is not said from what"
        parent, score = joined(made_from.groups)
        kept = closest_points(parent, score, closest=settings.closest)
        _write(attempt.out, LevelStateFile, np.asarray(read_array(made_from.centroids)), parent, kept)
        ends = np.searchsorted(kept, made_from.part_ends)
        return {"part_rows": np.diff(ends, prepend=0).tolist()}

    return work


def load_level(settings: LevelSettings) -> Work[LevelTask]:
    """A level from end to end, or what steps have made of it."""

    def work(attempt: Attempt[LevelTask]) -> Facts:
        if made := attempt.task.made:
            centroids, parent = (np.asarray(read_array(file)) for file in (made.centroids, made.parent))
        else:
            centroids, parent = _build_at_once(np.asarray(read_array(attempt.task.below)), settings)
        _write(attempt.out, LevelFile, centroids, parent)
        return {"num_clusters": len(centroids), "num_below": len(parent)}

    return work


def _build_at_once(below: np.ndarray, settings: LevelSettings) -> tuple[np.ndarray, np.ndarray]:
    from curation.cluster.hierarchy import build_level

    found = build_level(
        below,
        settings.level,
        resampling_steps=settings.resampling_steps,
        iterations=settings.iterations,
        seed=settings.seed,
    )
    return found.centroids, found.parent


def _write(out: Path, names: type[StrEnum], *arrays: np.ndarray) -> None:
    for name, array in zip(names, arrays, strict=True):
        storage.write_vectors(out / name, array)
