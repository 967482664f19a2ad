"""cluster: k-means over the surviving pool images; curated images are assigned to the same clusters."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float16, Int64

from curation import storage
from curation.cluster.kmeans import ClusterConfig, assign, default_num_clusters, kmeans
from pipelines.config import RunConfig
from pipelines.parts import Part, gather_vectors, roles, vector_blocks
from pipelines.runner import Runner
from pipelines.stages.decontaminate import Leaks
from pipelines.stages.dedup import Copies
from pipelines.stages.survivors import survivor_item, survivors
from pipelines.step import Attempt, FileRef, Item, Step, Work


@dataclass(frozen=True)
class Clusters:
    """Centroids, and for every row its survival, its cluster (-1: none) and its closeness to the centroid."""

    alive: FileRef
    cluster: FileRef
    score: FileRef
    centroids: FileRef
    digest: str


def cluster(
    runner: Runner, config: RunConfig, parts: Sequence[Part], copies: Copies, leaks: Leaks
) -> Clusters:
    """Find the concepts of the pool."""
    settings = {**config.cluster.model_dump(mode="json"), "seed": config.seed}
    load = partial(_load, config.cluster, config.seed)
    step = Step("cluster", 1, settings, load, "task", "cluster", config.describe.embed.threads)
    item: Item = survivor_item(parts, copies, leaks)
    receipt = runner.run_one(step, item)

    def file(name: str) -> FileRef:
        return receipt.file(runner.run_dir, name)

    return Clusters(
        file("alive.npy"), file("cluster.npy"), file("score.npy"), file("centroids.npy"), receipt.digest
    )


def _load(config: ClusterConfig, seed: int) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        parts: tuple[Part, ...] = attempt.payload["parts"]
        alive = survivors(parts, attempt.payload["copies"], attempt.payload["leaks"])
        pool = np.flatnonzero(alive & roles(parts, "uncurated"))
        trained_on = pool if len(pool) else np.flatnonzero(alive)
        k = min(config.num_clusters or default_num_clusters(len(trained_on)), len(trained_on))
        labels = np.full(len(alive), -1, np.int32)
        scores = np.zeros(len(alive), np.float32)
        centroids = np.zeros((0, gather_vectors(parts, "embeddings", trained_on[:1]).shape[1]), np.float32)
        inertia = np.zeros(0)
        if k:
            found = kmeans(
                [partial(_survivors_of, part, trained_on) for part in _with_rows(parts, trained_on)],
                num_clusters=k,
                seed=seed,
                iterations=config.iterations,
                tolerance=config.tolerance,
                max_points_per_centroid=config.max_points_per_centroid,
            )
            centroids, inertia = found.centroids, found.inertia
            for rows, vectors in vector_blocks(parts, "embeddings", np.flatnonzero(alive)):
                labels[rows], scores[rows] = assign(vectors, centroids)
        for name, array in [
            ("alive", alive),
            ("cluster", labels),
            ("score", scores),
            ("centroids", centroids),
        ]:
            storage.write_vectors(attempt.out / f"{name}.npy", array)
        return {"num_clusters": k, "inertia": inertia.tolist(), "num_trained_on": len(trained_on)}

    return work


def _with_rows(parts: Sequence[Part], rows: Int64[np.ndarray, " m"]) -> list[Part]:
    bounds = [np.searchsorted(rows, [part.offset, part.offset + part.num_rows]) for part in parts]
    return [part for part, (start, stop) in zip(parts, bounds, strict=True) if stop > start]


def _survivors_of(part: Part, rows: Int64[np.ndarray, " m"]) -> Float16[np.ndarray, "k d"]:
    return gather_vectors([part], "embeddings", rows)
