"""cluster: k-means over the surviving pool images; curated images are assigned to the same clusters.

What fits one group of rows and takes minutes is clustered by one task. A larger pool goes through steps of
its own (`kmeans.py`), which give the same bytes and are removed once clusters are published.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int32, Int64

from curation import storage
from curation.cluster.config import ClusterConfig, default_num_clusters
from curation.cluster.kmeans import assign, kmeans, training_rows
from pipelines.config.run_config import RunConfig
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, FileRef, Item, Receipt, Step, Work
from pipelines.rows.groups import group_digest, make_groups
from pipelines.rows.parts import Part, gather_vectors, read_array, roles, vector_blocks
from pipelines.stages.cluster.kmeans import Fitted, KMeansSteps
from pipelines.stages.cluster.training_set import Training, settings_of
from pipelines.stages.copies.decontaminate import Leaks
from pipelines.stages.copies.dedup import Copies
from pipelines.stages.copies.survivors import survivor_item, survivors


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
    rule, seed, threads = config.cluster, config.seed, config.describe.embed.threads
    load = partial(_load, rule, seed)
    step = Step("cluster", 3, settings_of(rule, seed), load, "task", "cluster", threads)
    item: Item = survivor_item(parts, copies, leaks)
    num_rows = sum(part.num_rows for part in parts)
    most = rule.num_clusters or default_num_clusters(num_rows)  # fewer where few rows survive
    if runner.has_to_do(step, item) and rule.is_large(num_rows, most):
        receipt = _in_steps(runner, step, item, rule=rule, seed=seed)
    else:
        receipt = runner.run_one(step, item)

    def file(name: str) -> FileRef:
        return receipt.file(runner.run_dir, name)

    return Clusters(
        file("alive.npy"),
        file("cluster.npy"),
        file("score.npy"),
        file("centroids.npy"),
        receipt.facts["num_clusters"],
        receipt.digest,
    )


def _in_steps(runner: Runner, step: Step, item: Item, *, rule: ClusterConfig, seed: int) -> Receipt:
    """Do `step` by steps of its own, which are spread over workers and resumed one by one."""
    load = partial(_load_rows, rule, seed)
    rows_step = Step("cluster_rows", 1, step.config, load, "task", "cluster", step.threads)
    [rows] = runner.run_inside(rows_step, [item])
    parts, k = item.payload["parts"], rows.facts["num_clusters"]
    if not k or not rule.is_large(sum(part.num_rows for part in parts), k):  # 0: nothing survives
        receipt = runner.run_one(step, item)
        runner.forget(rows_step, [item])
        return receipt
    training = Training.on(
        parts,
        rows.facts["part_rows"],
        rows.file(runner.run_dir, "trained_on.npy"),
        digest=step.identity(item),
        num_clusters=k,
    )
    iterations = KMeansSteps(runner, rule, training, seed=seed, threads=step.threads)
    fitted = iterations.run()

    alive = rows.file(runner.run_dir, "alive.npy")
    load_labels, num_gpus = partial(_load_labels, rule.device), int(rule.device == "cuda")
    labels_step = Step(
        "cluster_labels", 1, step.config, load_labels, "task", "cluster", step.threads, num_gpus=num_gpus
    )
    labels = [
        Item(
            (training.digest, group_digest(group)),
            {"parts": group, "alive": alive, "centroids": fitted.centroids},
        )
        for group in make_groups(parts, [part.num_rows for part in parts], rows=rule.rows_of_group(k))
    ]
    with runner.progress.step("cluster_labels", total=len(labels), done=0) as advance:
        found = runner.run_inside(labels_step, labels, advance=advance)
    label, score = (
        tuple(one.file(runner.run_dir, name) for one in found) for name in ("cluster.npy", "score.npy")
    )
    made = _Made(alive, fitted, label, score, rows.facts["num_trained_on"])
    receipt = runner.run_one(step, replace(item, payload={"made": made}))
    iterations.forget()
    runner.forget(labels_step, labels)
    runner.forget(rows_step, [item])
    return receipt


@dataclass(frozen=True)
class _Made:
    """What the steps have made for `cluster` to put together."""

    alive: FileRef
    fitted: Fitted
    cluster: tuple[FileRef, ...]  # by groups of all parts
    score: tuple[FileRef, ...]
    num_trained_on: int


@dataclass(frozen=True)
class _Rows:
    """Which rows there are to cluster, and into how many clusters."""

    alive: Bool[np.ndarray, " n"]
    num_candidates: int  # rows to train on, before a sample of them is taken
    trained_on: Int64[np.ndarray, " m"]
    num_clusters: int


def _choose_rows(attempt: Attempt, rule: ClusterConfig, seed: int) -> _Rows:
    parts: tuple[Part, ...] = attempt.payload["parts"]
    alive = survivors(parts, attempt.payload["copies"], attempt.payload["leaks"])
    pool = np.flatnonzero(alive & roles(parts, "uncurated"))
    candidates = pool if len(pool) else np.flatnonzero(alive)
    k = min(rule.num_clusters or default_num_clusters(len(candidates)), len(candidates))
    chosen = training_rows(
        len(candidates), k, max_points_per_centroid=rule.max_points_per_centroid, seed=seed
    )
    return _Rows(alive, len(candidates), candidates[chosen], k)


def _load_rows(rule: ClusterConfig, seed: int) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        rows = _choose_rows(attempt, rule, seed)
        storage.write_vectors(attempt.out / "alive.npy", rows.alive)
        storage.write_vectors(attempt.out / "trained_on.npy", rows.trained_on)
        parts: tuple[Part, ...] = attempt.payload["parts"]
        ends = np.searchsorted(rows.trained_on, [part.offset + part.num_rows for part in parts])
        return {
            "num_clusters": rows.num_clusters,
            "num_trained_on": rows.num_candidates,
            "part_rows": np.diff(ends, prepend=0).tolist(),
        }

    return work


def _load_labels(device: Literal["cpu", "cuda"]) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        parts: tuple[Part, ...] = attempt.payload["parts"]
        first, last = parts[0].offset, parts[-1].offset + parts[-1].num_rows
        alive = np.asarray(read_array(attempt.payload["alive"])[first:last])
        centroids = np.array(read_array(attempt.payload["centroids"]))
        label, score = assign_rows(parts, alive, centroids, device=device)
        storage.write_vectors(attempt.out / "cluster.npy", label)
        storage.write_vectors(attempt.out / "score.npy", score)
        return {"num_rows": int(alive.sum())}

    return work


def _load(rule: ClusterConfig, seed: int) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        made = attempt.payload.get("made")
        return _cluster_at_once(attempt, rule, seed) if made is None else _put_together(attempt, made)

    return work


def _put_together(attempt: Attempt, made: _Made) -> dict[str, Any]:
    label, score = (
        np.concatenate([read_array(file) for file in files]) for files in (made.cluster, made.score)
    )
    centroids = np.asarray(read_array(made.fitted.centroids))
    return _write(
        attempt,
        (np.asarray(read_array(made.alive)), label, score, centroids),
        inertia=made.fitted.inertia,
        num_trained_on=made.num_trained_on,
    )


def _cluster_at_once(attempt: Attempt, rule: ClusterConfig, seed: int) -> dict[str, Any]:
    parts: tuple[Part, ...] = attempt.payload["parts"]
    rows = _choose_rows(attempt, rule, seed)
    inertia: list[float] = []
    if rows.num_clusters:
        found = kmeans(
            [partial(_vectors_of, part, rows.trained_on) for part in _with_rows(parts, rows.trained_on)],
            num_clusters=rows.num_clusters,
            seed=seed,
            iterations=rule.iterations,
            tolerance=rule.tolerance,
        )
        centroids, inertia = found.centroids, found.inertia.tolist()
    else:
        centroids = gather_vectors(parts, "embeddings", rows.trained_on).astype(np.float32)
    label, score = assign_rows(parts, rows.alive, centroids)
    return _write(
        attempt, (rows.alive, label, score, centroids), inertia=inertia, num_trained_on=rows.num_candidates
    )


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
    attempt: Attempt, arrays: Sequence[np.ndarray], *, inertia: list[float], num_trained_on: int
) -> dict[str, Any]:
    for name, array in zip(("alive", "cluster", "score", "centroids"), arrays, strict=True):
        storage.write_vectors(attempt.out / f"{name}.npy", array)
    return {"num_clusters": len(arrays[-1]), "inertia": inertia, "num_trained_on": num_trained_on}


def _with_rows(parts: Sequence[Part], rows: Int64[np.ndarray, " m"]) -> list[Part]:
    bounds = [np.searchsorted(rows, [part.offset, part.offset + part.num_rows]) for part in parts]
    return [part for part, (start, stop) in zip(parts, bounds, strict=True) if stop > start]


def _vectors_of(part: Part, rows: Int64[np.ndarray, " m"]) -> Float16[np.ndarray, "k d"]:
    return gather_vectors([part], "embeddings", rows)
