"""hierarchy: the clusters of the pool are split into leaves and clustered in turn, level upon level."""

from collections.abc import Sequence
from dataclasses import dataclass

from curation.cluster.resampling import seed_of
from pipelines.config.run_config import RunConfig
from pipelines.engine.digest import digest_of
from pipelines.engine.runner import Runner
from pipelines.engine.step import FileRef
from pipelines.rows.parts import Part
from pipelines.stages.cluster.cluster import Clusters
from pipelines.stages.cluster.level import LevelFile, LevelPlan, cluster_level
from pipelines.stages.cluster.split_leaves import Leaves, SplitsSettings, split_into_leaves


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
        leaves, num_leaves = split_into_leaves(runner, rule, tuple(parts), clusters, threads=threads)
        below = _Below(leaves.centroids, num_leaves)
    parents = []
    levels = settings.levels if below.num_clusters else ()  # where nothing of the pool survives, nothing
    for number, level in enumerate(levels):
        each = config.cluster.of_level(level.num_clusters, iterations=settings.iterations)
        seed = seed_of(config.seed, 1 + number)
        plan = LevelPlan(below.num_clusters, level, each, settings.resampling_steps, seed)
        receipt = cluster_level(runner, plan, below.centroids, threads=threads)
        parents.append(receipt.file(runner.run_dir, LevelFile.PARENT))
        centroids = receipt.file(runner.run_dir, LevelFile.CENTROIDS)
        below = _Below(centroids, receipt.facts["num_clusters"])
    return Hierarchy(leaves.leaf, leaves.score, tuple(parents))
