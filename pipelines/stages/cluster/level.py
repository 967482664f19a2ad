"""One level of a hierarchy in steps, for levels whose points are too many for one task.

A level is clustered anew on its resampled points a number of times, and each of these clusterings is one in
steps (`kmeans.py`). Between them stands a state: the centroids, the cluster of every point, and
the points that the next clustering is made on. A clustering's own steps are removed once its state is there,
then the state before it; so a run that is killed goes on within a clustering, and removes what it had left.

The bytes are those of `curation.cluster.hierarchy.build_level`, which does small levels in one task.

What does the work is imported where it is loaded: it brings torch, for which no dry run waits.
"""

from dataclasses import dataclass, replace

from curation.cluster.config import ClusterConfig, LevelConfig
from curation.cluster.resampling import seed_of
from pipelines.engine.digest import digest_of
from pipelines.engine.runner import Runner
from pipelines.engine.step import FileRef, Item, Receipt, Step, Work
from pipelines.rows.groups import make_groups
from pipelines.rows.parts import Part
from pipelines.stages.cluster.cluster_tasks import ClusterFile
from pipelines.stages.cluster.kmeans import KMeansSteps
from pipelines.stages.cluster.level_tasks import (
    EVERY,
    GroupLabels,
    Labelled,
    LevelLabelsSettings,
    LevelLabelsTask,
    LevelSettings,
    LevelStateFile,
    LevelStateSettings,
    LevelStateTask,
    LevelTask,
    MadeLevel,
    PointsSettings,
    PointsTask,
    points_name,
)
from pipelines.stages.cluster.training_set import Training

# Points of a file. A constant: with other files, all that a level has begun would be begun anew.
POINT_ROWS = 1 << 16


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
    def rows_of_group(self) -> int:
        """Points of a unit of work, at least."""
        return self.rule.rows_of_group(self.level.num_clusters)

    @property
    def is_large(self) -> bool:
        """Whether the points fill more than one group of an iteration, or the iterations take long."""
        clusterings = 1 + self.resampling_steps
        return self.rule.is_large(self.num_points, self.level.num_clusters, clusterings=clusterings)


@dataclass(frozen=True)
class _State:
    """What a clustering leaves: the last one is the level."""

    centroids: FileRef
    parent: FileRef
    kept: FileRef  # points of the next clustering, ascending
    part_rows: tuple[int, ...]  # how many of them each part holds


def level_in_steps(
    runner: Runner, step: Step[LevelSettings, LevelTask], item: Item[LevelTask], plan: LevelPlan
) -> Receipt:
    """Do `step` by steps of its own: its work finds the finished level's files under `made` in its task."""
    return _LevelSteps(runner, step, item, plan).run()


class _LevelSteps:
    def __init__(
        self,
        runner: Runner,
        step: Step[LevelSettings, LevelTask],
        item: Item[LevelTask],
        plan: LevelPlan,
    ) -> None:
        self._runner, self._step, self._item, self._plan = runner, step, item, plan
        self._points = Step("level_points", 1, PointsSettings(POINT_ROWS), _load_points, "task", "cluster")
        self._points_item = Item(PointsTask(item.task.below))
        settings, num_gpus = LevelLabelsSettings(plan.rule.device), int(plan.rule.device == "cuda")
        self._labels = Step(
            "level_labels", 1, settings, _load_labels, "task", "cluster", step.threads, num_gpus=num_gpus
        )
        closest = LevelStateSettings(plan.level.num_closest(plan.num_points))
        self._states = Step("level_states", 3, closest, _load_state, "task", "cluster")

    def run(self) -> Receipt:
        runner, plan = self._runner, self._plan
        [points] = runner.run_inside(self._points, [self._points_item])
        parts = _parts(points, runner.run_dir)
        number = self._newest()
        if number >= 0:
            self._forget_before(number, points, parts)
        while number < plan.resampling_steps and not self._is_last(number):
            number += 1
            self._cluster(number, points, parts)
            self._forget_before(number, points, parts)
        last = self._state(number)
        task = replace(self._item.task, made=MadeLevel(last.centroids, last.parent))
        receipt = runner.run_one(self._step, replace(self._item, task=task))
        runner.forget(self._states, [self._state_item(number)])
        runner.forget(self._points, [self._points_item])
        return receipt

    def _is_last(self, number: int) -> bool:
        """Whether clusters came out empty, and what is left cannot fill so many again."""
        return number >= 0 and sum(self._state(number).part_rows) < self._plan.level.num_clusters

    def _cluster(self, number: int, points: Receipt, parts: tuple[Part, ...]) -> None:
        runner = self._runner
        iterations = self._iterations(number, points, parts)
        fitted = iterations.run()
        labels = self._label_items(number, parts, fitted.centroids)
        with runner.progress.step("level_labels", total=len(labels), done=0) as advance:
            found = runner.run_inside(self._labels, labels, advance=advance)
        groups = tuple(
            GroupLabels(
                *(one.file(runner.run_dir, name) for name in (ClusterFile.CLUSTER, ClusterFile.SCORE))
            )
            for one in found
        )
        part_ends = tuple(part.offset + part.num_rows for part in parts)
        state = self._state_item(number, Labelled(fitted.centroids, groups, part_ends))
        runner.run_inside(self._states, [state])

    def _iterations(self, number: int, points: Receipt, parts: tuple[Part, ...]) -> KMeansSteps:
        """The steps of a clustering: of all points, or of those that the state before it kept."""
        if number == 0:
            rows, part_rows = points.file(self._runner.run_dir, EVERY), [p.num_rows for p in parts]
        else:
            before = self._state(number - 1)
            rows, part_rows = before.kept, list(before.part_rows)
        training = Training.on(
            parts, part_rows, rows, digest=self._digest(number), num_clusters=self._plan.level.num_clusters
        )
        seed, threads = seed_of(self._plan.seed, number), self._step.threads
        return KMeansSteps(self._runner, self._plan.rule, training, seed=seed, threads=threads)

    def _label_items(
        self, number: int, parts: tuple[Part, ...], centroids: FileRef | None = None
    ) -> list[Item[LevelLabelsTask]]:
        rows = self._plan.rows_of_group
        return [
            Item(LevelLabelsTask(self._digest(number), group, centroids))
            for group in make_groups(parts, [part.num_rows for part in parts], rows=rows)
        ]

    def _digest(self, number: int) -> str:
        return digest_of(self._step.identity(self._item), number)

    def _forget_before(self, number: int, points: Receipt, parts: tuple[Part, ...]) -> None:
        """Remove what state `number` has superseded; the state before it last, since it names the rest."""
        if number == 0 or self._find(number - 1) is not None:
            self._iterations(number, points, parts).forget()
            self._runner.forget(self._labels, self._label_items(number, parts))
            self._runner.forget(self._states, [self._state_item(before) for before in range(number)])

    def _state_item(self, number: int, made_from: Labelled | None = None) -> Item[LevelStateTask]:
        return Item(LevelStateTask(self._step.identity(self._item), number, made_from))

    def _newest(self) -> int:
        states = [self._state_item(number) for number in range(self._plan.resampling_steps + 1)]
        return self._runner.last_done(self._states, states)

    def _find(self, number: int) -> Receipt | None:
        return self._runner.find(self._states, self._state_item(number))

    def _state(self, number: int) -> _State:
        receipt = self._find(number)
        assert receipt is not None, "a state is gone that a later one builds on"
        centroids, parent, kept = (receipt.file(self._runner.run_dir, name) for name in LevelStateFile)
        return _State(centroids, parent, kept, tuple(receipt.facts["part_rows"]))


def _parts(points: Receipt, run_dir: str) -> tuple[Part, ...]:
    """Points as parts; nothing but their vectors is asked for."""
    parts: list[Part] = []
    offset = 0
    for number, num_rows in enumerate(points.facts["part_rows"]):
        file = points.file(run_dir, points_name(number))
        parts.append(Part(number, "", "uncurated", offset, num_rows, images=file, embeddings=file))
        offset += num_rows
    return tuple(parts)


def _load_points(settings: PointsSettings) -> Work[PointsTask]:
    from pipelines.stages.cluster.level_points import load_points

    return load_points(settings)


def _load_labels(settings: LevelLabelsSettings) -> Work[LevelLabelsTask]:
    from pipelines.stages.cluster.level_points import load_labels

    return load_labels(settings)


def _load_state(settings: LevelStateSettings) -> Work[LevelStateTask]:
    from pipelines.stages.cluster.level_points import load_state

    return load_state(settings)
