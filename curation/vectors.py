"""Copies, clusters, samples and neighbours among vectors in memory, one call each: for a notebook.

A run comes to the same by the same functions, part by part. Here all vectors are one array (n, d) of float16,
float32 or float64, its rows of length 1 (`unit_vectors` makes them so). They are rounded to fp16, as a run
stores them: sums and products of such numbers are exact in fp64 (`curation.search.product`), so a result is
the same to the bit on every machine, with any number of threads. A row of zeros is one that has no vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import get_args

import numpy as np
from jaxtyping import Float, Float16, Float32, Int32, Int64

from curation.cluster.config import HierarchyConfig, LevelConfig, default_num_clusters
from curation.cluster.hierarchy import build_levels, split_clusters
from curation.cluster.kmeans import assign
from curation.cluster.kmeans import kmeans as fit
from curation.cluster.resampling import seed_of
from curation.cluster.sampling import Candidates, Order
from curation.cluster.sampling import balanced_sample as draw
from curation.cluster.seeding import to_unit_length
from curation.dedup.components import choose_representatives, components
from curation.errors import ConfigError
from curation.search.backend import Device
from curation.search.collapse import collapsed_pairs
from curation.search.edges import Pairs
from curation.search.exact import cosine_pairs
from curation.search.topk import TopK, top_k

_TOLERANCE = 0.002  # of a length: what fp16 rounds, with room


@dataclass(frozen=True)
class VectorCopies:
    """Which vectors are copies of which.

    `representative` has for every row the row that stays for it: itself, where it is no copy. `edges` are the
    pairs that decided, a < b, with their cosines; of equal vectors the first with each other one, at 1.
    """

    representative: Int64[np.ndarray, " n"]
    edges: Pairs

    @property
    def survivors(self) -> Int64[np.ndarray, " s"]:
        """The rows that stay, ascending."""
        return np.flatnonzero(self.representative == np.arange(len(self.representative)))


@dataclass(frozen=True)
class Clustering:
    """A cluster for every vector, and the clusters above it, where there are levels.

    `centroids` are of unit length; `score` is the inner product of a vector with that of its own `cluster`.
    `parents` has an array for each level, from below: the first says which cluster of the first level each of
    `centroids` is in, the next the same of the clusters of the first level.
    """

    centroids: Float32[np.ndarray, "k d"]
    cluster: Int32[np.ndarray, " n"]
    score: Float32[np.ndarray, " n"]
    parents: tuple[Int32[np.ndarray, " _"], ...] = ()

    def at_level(self, level: int) -> Int32[np.ndarray, " n"]:
        """The cluster of every vector at a level; 0 are those of `centroids`."""
        found = self.cluster
        for parent in self.parents[:level]:
            found = parent[found]
        return found


def unit_vectors(vectors: Float[np.ndarray, "n d"]) -> Float16[np.ndarray, "n d"]:
    """Rows scaled to length 1, as fp16: what a run stores. Rows of zeros stay.

    Raises:
        ConfigError: a number is not finite, or this is no array of vectors.
    """
    wide = _numbers(vectors).astype(np.float64)
    there = wide.any(axis=1)
    wide[there] /= abs(wide[there]).max(axis=1, initial=0, keepdims=True)  # whose squares are numbers
    wide[there] = to_unit_length(wide[there])
    return wide.astype(np.float16)


def copies_among(
    vectors: Float[np.ndarray, "n d"], *, threshold: float, rank: Int64[np.ndarray, " n"] | None = None
) -> VectorCopies:
    """Find the copies among vectors: components of the pairs whose cosine reaches the threshold.

    Args:
        vectors: copy descriptors of unit length, or zeros, which are nobody's copy.
        threshold: smallest cosine of a pair, -1 to 1; `dedup.cosine_threshold` of a config.
        rank: who survives: the smallest of a component, no two equal; None: the first row.

    Returns:
        The representative of every row, and the pairs.

    Raises:
        ConfigError: a threshold that is no cosine, a rank that is none, or no array of unit vectors.
    """
    stored = _stored(vectors)
    order = np.arange(len(stored)) if rank is None else rank
    if order.shape != (len(stored),) or len(np.unique(order)) != len(stored):
        raise ConfigError(
            "No order of survival",
            got=f"shape {order.shape}, {len(np.unique(order))} different ranks for {len(stored)} vectors",
            expected="a rank for each, no two equal",
            remedy="np.lexsort of what decides, and then its inverse, is such an order",
        )
    search = partial(cosine_pairs, threshold=threshold, same=True)
    edges = collapsed_pairs(stored, stored, same=True, search=search)
    copies = choose_representatives(components(len(stored), edges.a, edges.b), order)
    representative = np.arange(len(stored))
    representative[copies.row] = copies.representative
    return VectorCopies(representative, edges)


def kmeans(
    vectors: Float[np.ndarray, "n d"], *, num_clusters: int | None = None, seed: int = 0, iterations: int = 20
) -> Clustering:
    """Cluster vectors by spherical k-means from k-means++ seeds, as the stage `cluster` does.

    Args:
        vectors: of unit length, none of them zeros.
        num_clusters: k; None: 2.8·√n, at most n/10.
        seed: decides all draws.
        iterations: updates of the centroids, at most.

    Returns:
        The clusters, without levels above them.

    Raises:
        ConfigError: fewer vectors than clusters, or no array of unit vectors.

    Source: arXiv:2304.07193, appendix A; k-means++: Arthur & Vassilvitskii 2007.
    """
    stored = _stored(vectors, zeros=False)
    k = default_num_clusters(len(stored)) if num_clusters is None else num_clusters
    _require_some(k, "clusters")
    centroids = fit([partial(np.asarray, stored)], num_clusters=k, seed=seed, iterations=iterations).centroids
    return Clustering(centroids, *assign(stored, centroids))


def hierarchy(
    vectors: Float[np.ndarray, "n d"],
    levels: Sequence[int],
    *,
    num_clusters: int | None = None,
    splits: int = 1,
    seed: int = 0,
) -> Clustering:
    """Cluster vectors by k-means, then the clusters by resampled k-means, level upon level.

    Args:
        vectors: of unit length, none of them zeros.
        levels: how many clusters each level has, from below: fewer than the level below it.
        num_clusters: of the vectors, as for `kmeans`.
        splits: leaves that each of these is split into, at most; 1: they are the leaves.
        seed: decides all draws.

    Returns:
        The leaves as clusters, and one array of `parents` for each level.

    Raises:
        ConfigError: a level has no fewer clusters than the one below, or no array of unit vectors.

    Source: arXiv:2405.15613, §3.
    """
    flat = kmeans(vectors, num_clusters=num_clusters, seed=seed)
    for number in (splits, *levels):
        _require_some(number, "clusters")
    if not levels or any(above >= below for below, above in pairwise(levels)):
        raise ConfigError(
            "No levels of a hierarchy", got=tuple(levels), expected="one or more numbers, each below the last"
        )
    rule = HierarchyConfig(splits=splits, levels=tuple(LevelConfig(num_clusters=k) for k in levels))
    leaves = flat if splits == 1 else _split(_stored(vectors), flat, rule, seed=seed)
    above = build_levels(leaves.centroids, rule, seed=seed)
    return Clustering(leaves.centroids, leaves.cluster, leaves.score, tuple(level.parent for level in above))


def _split(
    stored: Float16[np.ndarray, "n d"], flat: Clustering, rule: HierarchyConfig, *, seed: int
) -> Clustering:
    """Every cluster split into leaves, on its own."""
    k, order = len(flat.centroids), np.argsort(flat.cluster, kind="stable")
    found = split_clusters(
        stored[order],
        np.searchsorted(flat.cluster[order], np.arange(k + 1)),
        splits=rule.splits,
        iterations=rule.iterations,
        seeds=[seed_of(seed, 0, cluster) for cluster in range(k)],
    )
    back = np.argsort(order)
    return Clustering(found.centroids, found.leaf[back], found.score[back])


def balanced_sample(
    clusters: Clustering, num_images: int, *, order: Order = "random", seed: int = 0
) -> Int64[np.ndarray, " s"]:
    """Choose rows spread as evenly over the clusters as their sizes allow, from the top level down.

    Args:
        clusters: of `hierarchy`, or of `kmeans`.
        num_images: rows to choose; all, where there are no more.
        order: which a cluster gives: `random` ones, or the `closest` to its centroid.
        seed: of the lots.

    Returns:
        Rows, ascending.

    Raises:
        ConfigError: a sample of nothing, or in no order.

    Source: arXiv:2405.15613, §3, hierarchical sampling.
    """
    _require_some(num_images, "images")
    if order not in get_args(Order):
        raise ConfigError("No order of a sample", got=order, expected=" or ".join(get_args(Order)))
    rows = Candidates(clusters.cluster, clusters.score, np.arange(len(clusters.cluster)))
    return np.flatnonzero(draw(rows, clusters.parents, budget=num_images, order=order, seed=seed))


def nearest_neighbours(
    queries: Float[np.ndarray, "q d"],
    vectors: Float[np.ndarray, "n d"],
    *,
    k: int = 10,
    device: Device = "cpu",
) -> TopK:
    """Find the k vectors of highest cosine for every query, exactly; as retrieval by sample does.

    Args:
        queries: of unit length, or zeros, which have no neighbours.
        vectors: likewise. Where they are the queries, each row is its own neighbour too.
        k: neighbours of each query.
        device: what proposes; the same result.

    Returns:
        Rows of `vectors` and their cosines, nearest first, the lower row of equals before; -1 and -inf where
        there are fewer than k.

    Raises:
        ConfigError: vectors of another dimension, a k below 1, no GPU, or no arrays of unit vectors.
    """
    asked, stored = _stored(queries), _stored(vectors)
    if asked.shape[1] != stored.shape[1]:
        raise ConfigError(
            "Queries and vectors of two kinds",
            got=f"{asked.shape[1]} and {stored.shape[1]} dimensions",
            expected="vectors of one model",
        )
    return top_k(asked, [(np.arange(len(stored)), stored)], k=k, device=device)


def _require_some(number: int, what: str) -> None:
    if number < 1:
        raise ConfigError(f"A number of {what} that is none", got=number, expected="1 or more")


def _stored(vectors: object, *, zeros: bool = True) -> Float16[np.ndarray, "n d"]:
    """Vectors as a run stores them.

    Raises:
        ConfigError: some row is not of unit length, or of zeros where these are none.
    """
    numbers = _numbers(vectors)
    lengths = np.linalg.norm(numbers.astype(np.float64), axis=1)
    wrong = abs(lengths - 1) > _TOLERANCE
    if zeros:
        wrong &= lengths > 0
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ConfigError(
            "A vector is not of length 1",
            got=f"length {lengths[row]:.4f} in row {row}; such rows: {int(wrong.sum())} of {len(lengths)}",
            expected="1 in each row" + (", or 0 where there is no vector" if zeros else ""),
            remedy="`curation.unit_vectors(vectors)` scales them"
            + ("" if zeros else "; leave out rows of zeros, which belong to no cluster"),
        )
    return numbers.astype(np.float16)


def _numbers(vectors: object) -> np.ndarray:
    kind = f"{type(vectors).__name__} of {getattr(vectors, 'dtype', 'no dtype')}"
    if not isinstance(vectors, np.ndarray) or vectors.dtype.kind != "f" or vectors.ndim != 2:
        raise ConfigError(
            "No array of vectors",
            got=f"{kind}, shape {getattr(vectors, 'shape', 'none')}",
            expected="a NumPy array (n, d) of float16, float32 or float64",
            remedy="np.stack makes one of a list of vectors, tensor.numpy() of a tensor",
        )
    if not (finite := np.isfinite(vectors).all(axis=1)).all():
        row = int(np.flatnonzero(~finite)[0])
        raise ConfigError(
            "A vector is not finite", got=f"{vectors[row].tolist()[:4]} … in row {row}", expected="numbers"
        )
    return vectors
