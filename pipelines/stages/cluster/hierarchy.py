"""hierarchy: the clusters of the pool are split into leaves and clustered in turn, level upon level.

What does the work is imported where it is loaded: it brings torch, for which no dry run waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curation.cluster.resampling import check_level, seed_of
from pipelines.config.run_config import RunConfig
from pipelines.engine.digest import digest_of
from pipelines.engine.runner import Runner
from pipelines.engine.step import FileRef, Item, NoSettings, Receipt, Step, Work
from pipelines.rows.parts import Part, read_array
from pipelines.stages.cluster.cluster import Clusters
from pipelines.stages.cluster.leaves_tasks import (
    Leaves,
    LeavesTask,
    MembersFile,
    MembersTask,
    SplitsSettings,
    SplitsTask,
)
from pipelines.stages.cluster.level import LevelPlan, level_in_steps
from pipelines.stages.cluster.level_tasks import LevelFile, LevelSettings, LevelTask

# Clusters are split in groups of about so many rows: a unit of work and resume, 400 MB of 384 dimensions.
GROUP_ROWS = 1 << 19


@dataclass(frozen=True)
class Hierarchy:
    """For every row its leaf (-1: none) and its closeness to it; for every cluster the one above it."""

    leaf: FileRef
    score: FileRef
    parents: tuple[FileRef, ...]  # of the leaves, of the first level's clusters, and so on

    @property
    def digest(self) -> str:
        """Hash of all that it says."""
        return digest_of([file.sha256 for file in (self.leaf, self.score, *self.parents)])


@dataclass(frozen=True)
class _Below:
    """The level below: its centroids, and how many."""

    centroids: FileRef
    num_clusters: int


def build_hierarchy(
    runner: Runner, config: RunConfig, parts: Sequence[Part], clusters: Clusters
) -> Hierarchy:
    """Build the levels above the flat clusters; without levels, these are the leaves and all there is."""
    leaves = Leaves(clusters.cluster, clusters.score, clusters.centroids)
    settings = config.hierarchy
    if settings is None:
        return Hierarchy(leaves.leaf, leaves.score, ())
    threads = config.executor.threads
    below = _Below(leaves.centroids, clusters.num_clusters)
    if settings.splits > 1:
        rule = SplitsSettings(settings.splits, settings.iterations, config.seed)
        leaves, num_leaves = _split(runner, rule, tuple(parts), clusters, threads=threads)
        below = _Below(leaves.centroids, num_leaves)
    parents = []
    levels = settings.levels if below.num_clusters else ()  # where nothing of the pool survives, nothing
    for number, level in enumerate(levels):
        each = config.cluster.of_level(level.num_clusters, iterations=settings.iterations)
        seed = seed_of(config.seed, 1 + number)
        plan = LevelPlan(below.num_clusters, level, each, settings.resampling_steps, seed)
        receipt = _cluster_level(runner, plan, below.centroids, threads=threads)
        parents.append(receipt.file(runner.run_dir, LevelFile.PARENT))
        centroids = receipt.file(runner.run_dir, LevelFile.CENTROIDS)
        below = _Below(centroids, receipt.facts["num_clusters"])
    return Hierarchy(leaves.leaf, leaves.score, tuple(parents))


def _cluster_level(runner: Runner, plan: LevelPlan, below: FileRef, *, threads: int) -> Receipt:
    check_level(plan.num_points, plan.level.num_clusters)
    settings = LevelSettings(plan.level, plan.resampling_steps, plan.rule.iterations, plan.seed)
    step = Step("cluster_level", 3, settings, _load_level, "task", "cluster", threads)
    item = Item(LevelTask(below))
    if plan.is_large and runner.has_to_do(step, item):
        return level_in_steps(runner, step, item, plan)
    return runner.run_one(step, item)


def _split(
    runner: Runner, settings: SplitsSettings, parts: tuple[Part, ...], clusters: Clusters, *, threads: int
) -> tuple[Leaves, int]:
    """Split every flat cluster into leaves, a group of clusters at a time; with the number of leaves."""
    members_step = Step("cluster_members", 1, NoSettings(), _load_members, "task", "cluster")
    members = runner.run_one(members_step, Item(MembersTask(parts, clusters.cluster)))
    rows, starts = (members.file(runner.run_dir, name) for name in MembersFile)

    splits_step = Step("cluster_splits", 3, settings, _load_splits, "task", "cluster", threads)
    items = [
        Item(SplitsTask(parts, rows, starts, range(first, last)))
        for first, last in group_clusters(read_array(starts), GROUP_ROWS)
    ]
    groups = tuple(Leaves.of(receipt, runner.run_dir) for receipt in runner.run(splits_step, items))

    num_rows, dim = sum(part.num_rows for part in parts), read_array(clusters.centroids).shape[1]
    leaves_step = Step("cluster_leaves", 1, NoSettings(), _load_leaves, "task", "cluster")
    receipt = runner.run_one(leaves_step, Item(LeavesTask(rows, groups, num_rows, dim)))
    return Leaves.of(receipt, runner.run_dir), receipt.facts["num_leaves"]


def group_clusters(starts: np.ndarray, group_rows: int) -> list[tuple[int, int]]:
    """Runs of clusters, first and last + 1, that each close once they have `group_rows` rows.

    Args:
        starts: where each cluster's rows begin, and the end.
        group_rows: rows.
    """
    groups, first, num_clusters = [], 0, len(starts) - 1
    while first < num_clusters:
        last = int(np.searchsorted(starts, starts[first] + group_rows))
        last = min(max(last, first + 1), num_clusters)
        groups.append((first, last))
        first = last
    return groups


def _load_level(settings: LevelSettings) -> Work[LevelTask]:
    from pipelines.stages.cluster.level_points import load_level

    return load_level(settings)


def _load_members(settings: NoSettings) -> Work[MembersTask]:
    from pipelines.stages.cluster.split_leaves import load_members

    return load_members(settings)


def _load_splits(settings: SplitsSettings) -> Work[SplitsTask]:
    from pipelines.stages.cluster.split_leaves import load_splits

    return load_splits(settings)


def _load_leaves(settings: NoSettings) -> Work[LeavesTask]:
    from pipelines.stages.cluster.split_leaves import load_leaves

    return load_leaves(settings)
