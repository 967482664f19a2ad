"""Spherical k-means on unit vectors, streamed over parts.

A vector belongs to the centroid with the largest inner product; a centroid is the mean of its vectors
scaled back to unit length (what FAISS calls `spherical=True`).

Two facts about fp16 vectors of unit length make the result the same for every cut into parts, every
worker count and every kind of hardware:

- their components are multiples of 2^-24 of size at most 1, so an fp64 sum of up to 2^29 of them has no
  rounding at all, in any order;
- products of two components are multiples of 2^-48, so an fp64 inner product of two of them is exact.

What is left is the product of vectors with fp32 centroids: which of them is largest is decided in fp64
wherever a cheaper product cannot tell (`curation.cluster.assignment`).

Source: arXiv:2304.07193, appendix A (100,000 clusters of the pool); k-means++: Arthur & Vassilvitskii 2007.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Float16, Float32, Float64, Int32, Int64

from curation.cluster.assignment import Desk, exact_products, search_for
from curation.cluster.blocks import BLOCK_ROWS, BlockWork, for_each_block
from curation.cluster.gpu import assign_on_gpu
from curation.cluster.schedule import Evaluation, is_finished, seeding_rows
from curation.cluster.seeding import seed_centroids, to_unit_length
from curation.cluster.sums import PartSums, RunningSums
from curation.errors import ConfigError

Part = Callable[[], Float16[np.ndarray, "m d"]]

SPLIT = 1 / 1024  # how far the halves of a split cluster are pushed apart, as in FAISS


@dataclass(frozen=True)
class KMeans:
    """A finished clustering; `inertia[-1]` and `sizes` are those of `centroids` over the training rows."""

    centroids: Float32[np.ndarray, "k d"]
    inertia: Float64[np.ndarray, "iterations"]
    sizes: Int64[np.ndarray, "k"]


def kmeans(
    vectors: Float16[np.ndarray, "n d"] | Sequence[Part],
    *,
    num_clusters: int,
    seed: int,
    iterations: int = 20,
    tolerance: float = 0.0,
) -> KMeans:
    """Cluster unit vectors; deterministic for a seed, whatever the cut into parts.

    Args:
        vectors: unit length, no zeros; or parts, each of which returns its own when called, and of which one
            is open at a time.
        num_clusters: k.
        seed: of k-means++.
        iterations: updates of the centroids, at most.
        tolerance: stop when an iteration lowers the inertia by no more than this share of it.

    Returns:
        Centroids of unit length, the inertia before the first update and after each, and cluster sizes.

    Raises:
        ConfigError: there are fewer vectors than clusters.
    """
    parts = [lambda: vectors] if isinstance(vectors, np.ndarray) else vectors
    num_rows = sum(len(part()) for part in parts)
    check_enough(num_rows, num_clusters)
    sample = take_rows(parts, seeding_rows(num_rows, num_clusters, seed=seed))
    centroids = seed_centroids(np.concatenate([part() for part in sample]), num_clusters, seed=seed)

    here = RunningSums(lambda: (part() for part in parts), num_rows)
    history: list[Evaluation] = []
    while True:
        total = here.under(centroids)
        history.append(evaluate(total, centroids))
        if is_finished(history, iterations=iterations, tolerance=tolerance):
            inertia = np.array([one.inertia for one in history])
            return KMeans(centroids=centroids, inertia=inertia, sizes=total.counts)
        centroids = update_centroids(centroids, total.sums, counts=total.counts)


def check_enough(num_rows: int, num_clusters: int) -> None:
    """See that there is a vector for each cluster.

    Raises:
        ConfigError: there is not.
    """
    if num_rows < num_clusters:
        raise ConfigError(
            "more clusters than vectors to cluster",
            got=f"num_clusters={num_clusters} for {num_rows} vectors",
            expected=f"1 to {num_rows}",
            remedy="Lower num_clusters, or leave it null to have it follow from the pool's size",
        )


def evaluate(total: PartSums, centroids: Float32[np.ndarray, "k d"]) -> Evaluation:
    """How good centroids are, from the sums of all vectors under them: Σ |x - c|² = 2·(N - Σ c·sums)."""
    inertia = 2.0 * float(total.counts.sum() - (total.sums * centroids).sum())
    return Evaluation(inertia=inertia, num_empty=int((total.counts == 0).sum()))


def assign(
    vectors: Float16[np.ndarray, "m d"],
    centroids: Float32[np.ndarray, "k d"],
    *,
    device: Literal["cpu", "cuda"] = "cpu",
) -> tuple[Int32[np.ndarray, "m"], Float32[np.ndarray, "m"]]:
    """The cluster of every vector, and its inner product with that centroid.

    Args:
        vectors: unit length.
        centroids: unit length.
        device: where; no result depends on it.

    Returns:
        The cluster of the largest fp64 inner product (the lowest of equals), and that product in fp32.
        A row's result depends on nothing but the row and the centroids.
    """
    score = np.empty(len(vectors), np.float32)
    if device == "cuda":
        cluster = assign_on_gpu(vectors, centroids)
        for start in range(0, len(vectors), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            score[rows] = exact_products(vectors[rows], centroids[cluster[rows]])
        return cluster, score
    cluster = np.empty(len(vectors), np.int32)
    search = search_for(centroids)

    def make_work() -> BlockWork:
        desk = Desk(search)

        def work(rows: slice, block: Float16[np.ndarray, "b d"]) -> None:
            cluster[rows] = desk.assign(block, desk.encode(block)).cluster
            score[rows] = exact_products(block, centroids[cluster[rows]])

        return work

    for_each_block([vectors], make_work)
    return cluster, score


def update_centroids(
    centroids: Float32[np.ndarray, "k d"],
    sums: Float64[np.ndarray, "k d"],
    *,
    counts: Int64[np.ndarray, "k"],
) -> Float32[np.ndarray, "k d"]:
    """Means of unit length; an empty cluster is re-seeded with half of the largest one.

    Empty clusters are served in order. Each takes the cluster that is largest by then (the lowest of
    equals): the two get that centroid with even components scaled by 1 ± 1/1024 and odd ones by 1 ∓ 1/1024,
    and count as half of it each. A cluster whose vectors cancel out keeps its centroid.

    Args:
        centroids: of the iteration before.
        sums: of the vectors of each cluster.
        counts: vectors in each cluster.

    Returns:
        New centroids of unit length.
    """
    norms = np.sqrt((sums * sums).sum(axis=1, keepdims=True))
    updated = np.where(norms > 0, sums / np.where(norms > 0, norms, 1.0), centroids)
    sizes = counts.astype(np.float64)
    push = np.where(np.arange(updated.shape[1]) % 2 == 0, SPLIT, -SPLIT)
    for empty in np.flatnonzero(counts == 0):
        largest = int(sizes.argmax())
        updated[empty] = updated[largest] * (1 + push)
        updated[largest] *= 1 - push
        sizes[empty] = sizes[largest] = sizes[largest] / 2
    return to_unit_length(updated)


def take_rows(parts: Sequence[Part], rows: Int64[np.ndarray, "r"]) -> Sequence[Part]:
    """The parts with some of their rows alone (ascending, counted over all parts)."""
    ends = np.cumsum([len(part()) for part in parts])
    starts = np.concatenate([[0], ends[:-1]])
    chosen = np.split(rows, np.searchsorted(rows, ends[:-1]))
    return [partial(_take, part, own - start) for part, own, start in zip(parts, chosen, starts, strict=True)]


def _take(part: Part, rows: Int64[np.ndarray, "r"]) -> Float16[np.ndarray, "r d"]:
    return np.asarray(part()[rows])
