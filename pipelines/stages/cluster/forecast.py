"""What clustering has to do: one item, or where that is too much, a group of parts in each iteration."""

from collections.abc import Iterator

import numpy as np

from curation.cluster.config import HierarchyConfig, LevelConfig
from pipelines.rows.groups import AlikeParts, num_groups, num_rows_of
from pipelines.stages.cluster.level import POINT_ROWS, LevelPlan
from pipelines.stages.cluster.split_leaves import GROUP_ROWS, group_clusters
from pipelines.stages.forecast import Sizes, StepForecast


def num_clusters(sizes: Sizes) -> int:
    """Clusters of the pool; of all that survive where there is no pool."""
    return max(1, sizes.config.cluster.clusters_of(sizes.pool or sizes.alive))


def forecast_cluster(sizes: Sizes) -> Iterator[StepForecast]:
    """The flat clusters, and the levels above them."""
    rule, k, dim = sizes.config.cluster, num_clusters(sizes), sizes.shares.embedding_dim
    trained = sizes.pool or sizes.alive
    if rule.max_points_per_centroid is not None:
        trained = min(trained, rule.max_points_per_centroid * k)
    in_steps, group_rows, groups = rule.is_large(sizes.total, k), rule.rows_of_group(k), 1
    if in_steps:
        parts = sizes.parts_of(sizes.is_uncurated) or sizes.parts
        groups = max(1, num_groups(parts, rows=group_rows * num_rows_of(parts) / max(trained, 1)))
    rows = trained * (rule.iterations + 1) + sizes.alive
    held = (min(trained, group_rows) if groups > 1 else trained) * dim * 3 + k * dim * 16
    yield StepForecast(
        "cluster", "cluster", groups, "row × cluster × iteration", rows * k, rows * 2.0 * dim,
        held + 25.0 * sizes.total, "per row, cluster and iteration at most, by group of rows",
        in_steps=in_steps,
    )  # fmt: skip
    if (settings := sizes.config.hierarchy) is not None:
        yield from _forecast_splits(sizes, settings) if settings.splits > 1 else ()
        below = k * settings.splits
        for level in settings.levels:
            yield _forecast_level(sizes, settings, level, below)
            below = level.num_clusters


def _forecast_splits(sizes: Sizes, settings: HierarchyConfig) -> Iterator[StepForecast]:
    pool, k, dim = sizes.pool, num_clusters(sizes), sizes.shares.embedding_dim
    yield sizes.in_one_item("cluster_members", "cluster", read=4.0 * sizes.total, held=40.0 * pool)
    groups = group_clusters(np.linspace(0, pool, k + 1), GROUP_ROWS)  # of clusters of one size
    units = pool * settings.splits * (settings.iterations + 1)
    yield StepForecast(
        "cluster_splits", "cluster", len(groups), "row × cluster × iteration", units, 2.0 * dim * pool,
        4.0 * dim * min(pool, GROUP_ROWS), "per row, part of its cluster and iteration, by group of clusters",
    )  # fmt: skip
    yield sizes.in_one_item("cluster_leaves", "cluster", read=8.0 * pool, held=16.0 * sizes.total)


def _forecast_level(sizes: Sizes, settings: HierarchyConfig, level: LevelConfig, points: int) -> StepForecast:
    """A level above so many points; it is clustered again on what each resampling keeps of them."""
    k, again, dim = level.num_clusters, settings.resampling_steps, sizes.shares.embedding_dim
    rule = sizes.config.cluster.of_level(k, iterations=settings.iterations)
    plan = LevelPlan(points, level, rule, again, sizes.config.seed)
    kept = min(points, k * level.num_closest(points)) if again else points
    # All points once, and what is kept of them for every resampling; after each, all points once more.
    rounds = rule.iterations * (points + again * kept) + points * (1 + again)
    whole, rest = divmod(points, POINT_ROWS)
    files, group_rows = [AlikeParts("", whole, POINT_ROWS), AlikeParts("", 1, rest)], rule.rows_of_group(k)
    groups = num_groups(files[: 2 if rest else 1], rows=group_rows * points / kept)
    return StepForecast(
        "cluster_level", "cluster", groups if plan.is_large else 1,
        "row × cluster × iteration", k * rounds, 4.0 * dim * points,
        12.0 * dim * min(points, group_rows) + 16.0 * dim * k,
        "per cluster below (or as many as a resampling keeps), cluster and iteration, by group of them",
        in_steps=plan.is_large,
    )  # fmt: skip
