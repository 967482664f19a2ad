"""hierarchy: the clusters of the pool are split into leaves and clustered in turn, level upon level."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from curation import storage
from curation.cluster.config import ClusterConfig, HierarchyConfig, LevelConfig
from curation.cluster.hierarchy import (
    Level,
    build_level,
    check_level,
    seed_of,
    split_clusters,
)
from pipelines.config.run_config import RunConfig
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, FileRef, Item, Receipt, Step, Work, digest_of
from pipelines.rows.parts import Part, gather_vectors, read_array, roles
from pipelines.stages.cluster.cluster import Clusters
from pipelines.stages.cluster.level import LevelPlan, level_in_steps

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
class _Leaves:
    leaf: FileRef
    score: FileRef
    centroids: FileRef


@dataclass(frozen=True)
class _Below:
    """The level below: its centroids, and how many."""

    centroids: FileRef
    num_clusters: int


def build_hierarchy(
    runner: Runner, config: RunConfig, parts: Sequence[Part], clusters: Clusters
) -> Hierarchy:
    """Build the levels above the flat clusters; without levels, these are the leaves and all there is."""
    leaves = _Leaves(clusters.cluster, clusters.score, clusters.centroids)
    settings = config.hierarchy
    if settings is None:
        return Hierarchy(leaves.leaf, leaves.score, ())
    threads = config.describe.embed.threads
    below = _Below(leaves.centroids, clusters.num_clusters)
    if settings.splits > 1:
        leaves, num_leaves = _split(runner, settings, parts, clusters, seed=config.seed, threads=threads)
        below = _Below(leaves.centroids, num_leaves)
    parents = []
    levels = settings.levels if below.num_clusters else ()  # where nothing of the pool survives, nothing
    for number, level in enumerate(levels):
        rule = ClusterConfig(
            num_clusters=level.num_clusters,
            iterations=settings.iterations,
            group_rows=config.cluster.group_rows,
            device=config.cluster.device,
        )
        seed = seed_of(config.seed, 1 + number)
        plan = LevelPlan(below.num_clusters, level, rule, settings.resampling_steps, seed)
        receipt = _cluster_level(runner, settings, plan, below.centroids, threads=threads)
        parents.append(receipt.file(runner.run_dir, "parent.npy"))
        below = _Below(receipt.file(runner.run_dir, "centroids.npy"), receipt.facts["num_clusters"])
    return Hierarchy(leaves.leaf, leaves.score, tuple(parents))


def _cluster_level(
    runner: Runner, settings: HierarchyConfig, plan: LevelPlan, below: FileRef, *, threads: int
) -> Receipt:
    check_level(plan.num_points, plan.level.num_clusters)
    config = {
        **plan.level.model_dump(mode="json"),
        "resampling_steps": settings.resampling_steps,
        "iterations": settings.iterations,
        "seed": plan.seed,
    }
    load = partial(_load_level, settings, plan.level, plan.seed)
    step = Step("cluster_level", 3, config, load, "task", "cluster", threads)
    item = Item((below.sha256,), {"below": below})
    if plan.is_large and runner.has_to_do(step, item):
        return level_in_steps(runner, step, item, plan)
    return runner.run_one(step, item)


def _load_level(settings: HierarchyConfig, level: LevelConfig, seed: int) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        if made := attempt.payload.get("made"):
            found = Level(*(np.asarray(read_array(file)) for file in (made.centroids, made.parent)))
        else:
            found = build_level(
                np.asarray(read_array(attempt.payload["below"])),
                level,
                resampling_steps=settings.resampling_steps,
                iterations=settings.iterations,
                seed=seed,
            )
        storage.write_vectors(attempt.out / "centroids.npy", found.centroids)
        storage.write_vectors(attempt.out / "parent.npy", found.parent)
        return {"num_clusters": len(found.centroids), "num_below": len(found.parent)}

    return work


def _split(
    runner: Runner,
    settings: HierarchyConfig,
    parts: Sequence[Part],
    clusters: Clusters,
    *,
    seed: int,
    threads: int,
) -> tuple[_Leaves, int]:
    """Split every flat cluster into leaves, a group of clusters at a time; with the number of leaves."""
    step = Step("cluster_members", 1, {}, _load_members, "task", "cluster")
    places = [part.digest() for part in parts]
    item = Item((*places, clusters.cluster.sha256), {"parts": tuple(parts), "cluster": clusters.cluster})
    members = runner.run_one(step, item)
    rows, starts = (members.file(runner.run_dir, name) for name in ("rows.npy", "starts.npy"))

    config = {"splits": settings.splits, "iterations": settings.iterations, "seed": seed}
    load = partial(_load_splits, settings, seed)
    step = Step("cluster_splits", 3, config, load, "task", "cluster", threads)
    inputs = (members.digest, digest_of([part.digest("embeddings") for part in parts]))
    shared = {"parts": tuple(parts), "rows": rows, "starts": starts}
    items = [
        Item((*inputs, f"clusters {first} to {last}"), {**shared, "first": first, "last": last})
        for first, last in group_clusters(read_array(starts), GROUP_ROWS)
    ]
    groups = tuple(
        _Leaves(*(receipt.file(runner.run_dir, f"{name}.npy") for name in ("leaf", "score", "centroids")))
        for receipt in runner.run(step, items)
    )

    step = Step("cluster_leaves", 1, {}, _load_leaves, "task", "cluster")
    inputs = (members.digest, *(file.sha256 for group in groups for file in vars(group).values()))
    num_rows, dim = sum(part.num_rows for part in parts), read_array(clusters.centroids).shape[1]
    payload = {"rows": rows, "groups": groups, "num_rows": num_rows, "dim": dim}
    receipt = runner.run_one(step, Item(inputs, payload))
    files = (receipt.file(runner.run_dir, f"{name}.npy") for name in ("leaf", "score", "centroids"))
    return _Leaves(*files), receipt.facts["num_leaves"]


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


def _load_members() -> Work:
    """Rows of the pool, cluster by cluster."""

    def work(attempt: Attempt) -> dict[str, Any]:
        parts: tuple[Part, ...] = attempt.payload["parts"]
        cluster = np.asarray(read_array(attempt.payload["cluster"]))
        pool = np.flatnonzero((cluster >= 0) & roles(parts, "uncurated"))
        rows = pool[np.argsort(cluster[pool], kind="stable")]
        starts = np.cumsum(np.bincount(cluster[pool] + 1, minlength=1))
        storage.write_vectors(attempt.out / "rows.npy", rows)
        storage.write_vectors(attempt.out / "starts.npy", starts)
        return {"num_clustered": len(rows)}

    return work


def _load_splits(settings: HierarchyConfig, seed: int) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        parts: tuple[Part, ...] = attempt.payload["parts"]
        first, last = attempt.payload["first"], attempt.payload["last"]
        starts = np.asarray(read_array(attempt.payload["starts"]))[first : last + 1]
        rows = np.asarray(read_array(attempt.payload["rows"])[starts[0] : starts[-1]])
        order = np.argsort(rows)
        vectors = gather_vectors(parts, "embeddings", rows[order])[np.argsort(order)]
        split = split_clusters(
            vectors,
            starts - starts[0],
            splits=settings.splits,
            iterations=settings.iterations,
            seeds=[seed_of(seed, 0, cluster) for cluster in range(first, last)],
        )
        storage.write_vectors(attempt.out / "leaf.npy", split.leaf)
        storage.write_vectors(attempt.out / "score.npy", split.score)
        storage.write_vectors(attempt.out / "centroids.npy", split.centroids)
        return {"num_rows": len(rows), "num_leaves": len(split.centroids)}

    return work


def _load_leaves() -> Work:
    """The leaves of all groups, numbered through, by global row."""

    def work(attempt: Attempt) -> dict[str, Any]:
        groups: tuple[_Leaves, ...] = attempt.payload["groups"]
        rows, num_rows = read_array(attempt.payload["rows"]), attempt.payload["num_rows"]
        leaf, score = np.full(num_rows, -1, np.int32), np.zeros(num_rows, np.float32)
        centroids = [np.empty((0, attempt.payload["dim"]), np.float32)]
        num_leaves = start = 0
        for group in groups:
            local = read_array(group.leaf)
            mine = rows[start : start + len(local)]
            leaf[mine], score[mine] = local + num_leaves, read_array(group.score)
            centroids.append(np.asarray(read_array(group.centroids)))
            num_leaves += len(centroids[-1])
            start += len(local)
        storage.write_vectors(attempt.out / "leaf.npy", leaf)
        storage.write_vectors(attempt.out / "score.npy", score)
        storage.write_vectors(attempt.out / "centroids.npy", np.concatenate(centroids))
        return {"num_leaves": num_leaves}

    return work
