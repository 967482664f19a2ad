"""Flat clusters are split into leaves, a group of clusters at a time, and these are numbered through.

The work imports what it computes with where it is loaded: it brings torch, for which no dry run waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np

from curation import storage
from curation.cluster.resampling import seed_of
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, Facts, FileRef, Item, NoSettings, Receipt, Step, Work
from pipelines.rows.parts import Part, PlacesOf, gather_vectors, read_array, roles
from pipelines.stages.cluster.cluster import Clusters

# Clusters are split in groups of about so many rows: a unit of work and resume, 400 MB of 384 dimensions.
GROUP_ROWS = 1 << 19


class MembersFile(StrEnum):
    """The rows of every flat cluster, one cluster after the other, and where each begins."""

    ROWS = "rows.npy"
    STARTS = "starts.npy"


class LeavesFile(StrEnum):
    """Leaves: of a group of clusters, by place in the group; of all, by global row."""

    LEAF = "leaf.npy"
    SCORE = "score.npy"
    CENTROIDS = "centroids.npy"


@dataclass(frozen=True)
class Leaves:
    """Leaves of a group of clusters, or of all."""

    leaf: FileRef
    score: FileRef
    centroids: FileRef

    @classmethod
    def of(cls, receipt: Receipt, run_dir: str) -> "Leaves":
        """Those that a step has put out."""
        return cls(*(receipt.file(run_dir, name) for name in LeavesFile))


@dataclass(frozen=True)
class MembersTask:
    """The flat cluster of every row."""

    parts: Annotated[tuple[Part, ...], PlacesOf()]
    cluster: FileRef


@dataclass(frozen=True)
class SplitsSettings:
    """How a flat cluster is split."""

    splits: int
    iterations: int
    seed: int


@dataclass(frozen=True)
class SplitsTask:
    """The vectors of some flat clusters."""

    parts: Annotated[tuple[Part, ...], PlacesOf("embeddings")]
    rows: FileRef
    starts: FileRef
    clusters: range


@dataclass(frozen=True)
class LeavesTask:
    """The leaves of all groups, to be numbered through."""

    rows: FileRef
    groups: tuple[Leaves, ...]
    num_rows: int  # of the run
    dim: int


def split_into_leaves(
    runner: Runner, settings: SplitsSettings, parts: tuple[Part, ...], clusters: Clusters, *, threads: int
) -> tuple[Leaves, int]:
    """Split every flat cluster; with the number of leaves."""
    members_step = Step("cluster_members", 1, NoSettings(), load_members, "cluster")
    members = runner.run_one(members_step, Item(MembersTask(parts, clusters.cluster)))
    rows, starts = (members.file(runner.run_dir, name) for name in MembersFile)

    splits_step = Step("cluster_splits", 3, settings, load_splits, "cluster", threads)
    items = [
        Item(SplitsTask(parts, rows, starts, some)) for some in group_clusters(read_array(starts), GROUP_ROWS)
    ]
    groups = tuple(Leaves.of(receipt, runner.run_dir) for receipt in runner.run(splits_step, items))

    num_rows, dim = sum(part.num_rows for part in parts), read_array(clusters.centroids).shape[1]
    leaves_step = Step("cluster_leaves", 1, NoSettings(), load_leaves, "cluster")
    receipt = runner.run_one(leaves_step, Item(LeavesTask(rows, groups, num_rows, dim)))
    return Leaves.of(receipt, runner.run_dir), receipt.facts["num_leaves"]


def group_clusters(starts: np.ndarray, group_rows: int) -> list[range]:
    """Runs of clusters that each close once they have `group_rows` rows.

    Args:
        starts: where each cluster's rows begin, and the end.
        group_rows: rows.
    """
    groups, first, num_clusters = [], 0, len(starts) - 1
    while first < num_clusters:
        last = int(np.searchsorted(starts, starts[first] + group_rows))
        last = min(max(last, first + 1), num_clusters)
        groups.append(range(first, last))
        first = last
    return groups


def load_members(_settings: NoSettings) -> Work[MembersTask]:
    """Rows of the pool, cluster by cluster."""

    def work(attempt: Attempt[MembersTask]) -> Facts:
        cluster = np.asarray(read_array(attempt.task.cluster))
        pool = np.flatnonzero((cluster >= 0) & roles(attempt.task.parts, "uncurated"))
        rows = pool[np.argsort(cluster[pool], kind="stable")]
        starts = np.cumsum(np.bincount(cluster[pool] + 1, minlength=1))
        _write(attempt.out, MembersFile, (rows, starts))
        return {"num_clustered": len(rows)}

    return work


def load_splits(settings: SplitsSettings) -> Work[SplitsTask]:
    """The leaves of a group of clusters."""
    from curation.cluster.hierarchy import split_clusters

    def work(attempt: Attempt[SplitsTask]) -> Facts:
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
        _write(attempt.out, LeavesFile, (split.leaf, split.score, split.centroids))
        return {"num_rows": len(rows), "num_leaves": len(split.centroids)}

    return work


def load_leaves(_settings: NoSettings) -> Work[LeavesTask]:
    """The leaves of all groups, numbered through, by global row."""

    def work(attempt: Attempt[LeavesTask]) -> Facts:
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
        _write(attempt.out, LeavesFile, (leaf, score, np.concatenate(centroids)))
        return {"num_leaves": num_leaves}

    return work


def _write(out: Path, names: type[StrEnum], arrays: Sequence[np.ndarray]) -> None:
    for name, array in zip(names, arrays, strict=True):
        storage.write_vectors(out / name, array)
