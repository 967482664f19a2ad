"""Spherical k-means on unit vectors, streamed over parts.

A vector belongs to the centroid with the largest inner product; a centroid is the mean of its vectors
scaled back to unit length (what FAISS calls `spherical=True`).

Two facts about fp16 vectors of unit length make the result the same for every cut into parts, every
worker count and every kind of hardware:

- their components are multiples of 2^-24 of size at most 1, so an fp64 sum of up to 2^29 of them has no
  rounding at all, in any order;
- products of two components are multiples of 2^-48, so an fp64 inner product of two of them is exact.

What is left is the product of vectors with fp32 centroids: it is taken in fp32, and every row whose two
best clusters lie within twice the error bound of that product is decided by an fp64 re-score.

Source: arXiv:2304.07193, appendix A (100,000 clusters of the pool); k-means++: Arthur & Vassilvitskii 2007.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float16, Float32, Float64, Int32, Int64
from pydantic import BaseModel, ConfigDict, Field

from curation.errors import ConfigError

Part = Callable[[], Float16[np.ndarray, "m d"]]

SEEDING_ROWS_PER_CENTROID = 16  # k-means++ costs 2·rows·k·d: 16 keeps it below a few Lloyd iterations
SEEDING_BATCH = 256  # candidates drawn at once; acceptance stays near 1 since it never exceeds those chosen
SPLIT = 1 / 1024  # how far the halves of a split cluster are pushed apart, as in FAISS


class ClusterConfig(BaseModel):
    """How the pool is divided into clusters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_clusters: int | None = Field(
        None, ge=1, description="clusters; null: 2.8·√N (100,000 for 1.3 billion images), at most N/10"
    )
    iterations: int = Field(20, ge=1, le=1000, description="updates of the centroids, at most")
    tolerance: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="stop when an iteration lowers the inertia by no more than this share of it",
    )
    max_points_per_centroid: int | None = Field(
        None, ge=1, description="train on a seeded sample of this many vectors a cluster; null: on all"
    )


@dataclass(frozen=True)
class PartSums:
    """What one part, or several, contribute to an iteration: their vectors' sums and counts by cluster."""

    sums: Float64[np.ndarray, "k d"]
    counts: Int64[np.ndarray, "k"]


@dataclass(frozen=True)
class KMeans:
    """A finished clustering; `inertia[-1]` and `sizes` are those of `centroids` over the training rows."""

    centroids: Float32[np.ndarray, "k d"]
    inertia: Float64[np.ndarray, "iterations"]
    sizes: Int64[np.ndarray, "k"]


# A builtin `map`, or an executor's: applies the function to every part, anywhere, and yields in part order.
MapParts = Callable[[Callable[[Part], PartSums], Sequence[Part]], Iterable[PartSums]]


def default_num_clusters(num_rows: int) -> int:
    """Clusters for a pool of `num_rows` vectors: the paper's share at its size, 10 vectors each or more."""
    return max(1, min(round(2.8 * math.sqrt(num_rows)), num_rows // 10))


def kmeans(
    parts: Sequence[Part],
    *,
    num_clusters: int,
    seed: int,
    iterations: int = 20,
    tolerance: float = 0.0,
    max_points_per_centroid: int | None = None,
    map_parts: MapParts = map,
) -> KMeans:
    """Cluster the unit vectors of all parts; deterministic for a seed, whatever the cut into parts.

    Args:
        parts: each returns its vectors when called: unit length, no zeros; one is open at a time.
        num_clusters: k.
        seed: of the training sample and of k-means++.
        iterations: updates of the centroids, at most.
        tolerance: stop when an iteration lowers the inertia by no more than this share of it.
        max_points_per_centroid: train on a sample of this many rows a cluster; None: on every row.
        map_parts: where `partial_sums` of the parts are computed; must yield in part order.

    Returns:
        Centroids of unit length, the inertia before the first update and after each, and cluster sizes.

    Raises:
        ConfigError: there are fewer vectors than clusters.
    """
    total = sum(len(part()) for part in parts)
    if total < num_clusters:
        raise ConfigError(
            "more clusters than vectors to cluster",
            got=f"num_clusters={num_clusters} for {total} vectors",
            expected=f"1 to {total}",
            remedy="Lower num_clusters, or leave it null to have it follow from the pool's size",
        )
    if max_points_per_centroid is not None:
        parts = _sample(parts, num_clusters * max_points_per_centroid, seed=seed)
    sample = [part() for part in _sample(parts, SEEDING_ROWS_PER_CENTROID * num_clusters, seed=seed)]
    centroids = seed_centroids(np.concatenate(sample), num_clusters, seed=seed)

    total_sums = _add(map_parts(partial(_open_and_sum, centroids=centroids), parts))
    inertia = [_inertia(total_sums, centroids)]
    for _ in range(iterations):
        reseeds = bool((total_sums.counts == 0).any())
        centroids = update_centroids(centroids, total_sums.sums, counts=total_sums.counts)
        total_sums = _add(map_parts(partial(_open_and_sum, centroids=centroids), parts))
        inertia.append(_inertia(total_sums, centroids))
        if not reseeds and inertia[-2] - inertia[-1] <= tolerance * inertia[-2]:
            break
    return KMeans(centroids=centroids, inertia=np.array(inertia), sizes=total_sums.counts)


def assign(
    vectors: Float16[np.ndarray, "m d"], centroids: Float32[np.ndarray, "k d"]
) -> tuple[Int32[np.ndarray, "m"], Float32[np.ndarray, "m"]]:
    """The cluster of every vector, and its inner product with that centroid.

    Args:
        vectors: unit length.
        centroids: unit length.

    Returns:
        The cluster of the largest fp64 inner product (the lowest of equals), and that product in fp32.
        A row's result depends on nothing but the row and the centroids.
    """
    cluster = np.empty(len(vectors), np.int32)
    score = np.empty(len(vectors), np.float32)
    for rows, nearest in _nearest(vectors, centroids):
        cluster[rows] = nearest
        score[rows] = _score(vectors[rows], centroids[nearest])
    return cluster, score


def partial_sums(vectors: Float16[np.ndarray, "m d"], centroids: Float32[np.ndarray, "k d"]) -> PartSums:
    """Sums and counts of one part under `centroids`; all that an iteration needs of it.

    Args:
        vectors: unit length, no zeros.
        centroids: unit length.

    Returns:
        fp64 sums without rounding (see the module's docstring), so that adding parts is exact too.
    """
    k, dim = centroids.shape
    sums, counts = torch.zeros((k, dim), dtype=torch.float64), np.zeros(k, np.int64)
    for rows, nearest in _nearest(vectors, centroids):
        block = torch.from_numpy(np.array(vectors[rows])).double()
        sums.index_add_(0, torch.from_numpy(nearest), block)  # in whatever order: the sums are exact
        counts += np.bincount(nearest, minlength=k)
    return PartSums(sums=sums.numpy(), counts=counts)


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
    return _unit(updated)


def seed_centroids(
    sample: Float16[np.ndarray, "s d"], num_clusters: int, *, seed: int
) -> Float32[np.ndarray, "k d"]:
    """k-means++: each seed is a vector drawn with probability ∝ its squared distance to the seeds before.

    Drawn in batches: a candidate drawn by the distances before the batch is accepted with probability
    (distance now / distance then), which leaves exactly the distribution of one draw at a time.

    Args:
        sample: unit vectors, at least `num_clusters` of them.
        num_clusters: k.
        seed: of the draws.

    Returns:
        Seeds of unit length. Where the sample has fewer than k distinct vectors the seeds repeat; the
        repeats come out empty and are re-seeded by `update_centroids`.

    Source: Arthur & Vassilvitskii 2007, "k-means++: the advantages of careful seeding".
    """
    rng = np.random.default_rng(seed)
    chosen = [int(rng.integers(len(sample)))]
    distance = _distances(sample, sample[chosen]).min(axis=1)
    while len(chosen) < num_clusters:
        mass = np.cumsum(distance)
        if mass[-1] == 0:
            break
        num_drawn = min(num_clusters - len(chosen), len(chosen), SEEDING_BATCH)
        drawn = np.searchsorted(mass, rng.random(num_drawn) * mass[-1], side="right")
        drawn = np.minimum(drawn, len(sample) - 1)
        accepted = _accept(distance[drawn], _distances(sample[drawn], sample[drawn]), rng.random(num_drawn))
        chosen.extend(drawn[accepted].tolist())
        for rows in _blocks(len(sample), 4096):
            nearest = _distances(sample[rows], sample[drawn[accepted]]).min(axis=1)
            np.minimum(distance[rows], nearest, out=distance[rows])
    return _unit(sample[np.resize(chosen, num_clusters)].astype(np.float64))


def _accept(
    before: Float64[np.ndarray, "b"], between: Float64[np.ndarray, "b b"], luck: Float64[np.ndarray, "b"]
) -> Int64[np.ndarray, "a"]:
    """Which of a batch of candidates stay: in order, each with probability distance now / distance before."""
    now = before.copy()
    accepted = []
    for candidate in range(len(before)):
        if luck[candidate] * before[candidate] < now[candidate]:
            accepted.append(candidate)
            np.minimum(now, between[candidate], out=now)
    return np.array(accepted, np.int64)


def _distances(a: Float16[np.ndarray, "a d"], b: Float16[np.ndarray, "b d"]) -> Float64[np.ndarray, "a b"]:
    """Squared distances; exact, so that equal vectors are at 0 and draws agree on all hardware."""
    x, y = torch.from_numpy(np.array(a)).double(), torch.from_numpy(np.array(b)).double()
    squares_x, squares_y = (x * x).sum(dim=1), (y * y).sum(dim=1)
    return (squares_x[:, None] + squares_y[None, :] - 2 * (x @ y.T)).numpy()


def _nearest(
    vectors: Float16[np.ndarray, "m d"], centroids: Float32[np.ndarray, "k d"]
) -> Iterator[tuple[slice, Int32[np.ndarray, "b"]]]:
    """Blocks of rows and their clusters."""
    k, dim = centroids.shape
    # 8 MB of products stay in cache and in the allocator: 16 MB cost 9,000 page faults in 30,000 rows. Under
    # 256 rows the centroids would be read too often.
    num_rows = min(4096, max(256, (1 << 21) // k))
    # A sum of d products in fp32 is off by at most d·2^-24·|x|·|c|, in any order. 1.01 is for lengths that
    # fp16 rounded, 2 for the subtraction below. Within twice that of the best, fp32 cannot tell.
    window = 2 * 1.01 * (dim + 2) * 2.0**-24
    weight = torch.from_numpy(np.array(centroids)).view(k, dim, 1, 1)
    for rows in _blocks(len(vectors), num_rows):
        block = torch.from_numpy(np.array(vectors[rows])).float()
        # A 1×1 convolution of at least 16 images is the same product by oneDNN, on any number of threads:
        # 215 GFLOP/s a core, where torch.mm (MKL) has 95 on AMD.
        images = torch.nn.functional.pad(block, (0, 0, 0, -len(block) % 16)).view(16, -1, 1, dim)
        products = torch.nn.functional.conv2d(images.permute(0, 3, 1, 2), weight).permute(0, 2, 3, 1)
        table = products.reshape(-1, k)[: len(block)].numpy()
        yield rows, _decide(table, vectors[rows], centroids, window=window)


def _decide(
    products: Float32[np.ndarray, "b k"],
    vectors: Float16[np.ndarray, "b d"],
    centroids: Float32[np.ndarray, "k d"],
    *,
    window: float,
) -> Int32[np.ndarray, "b"]:
    """The best cluster of each row, near ties decided in fp64; overwrites `products`."""
    every = np.arange(len(products))
    best = products.argmax(axis=1)  # NumPy's is vectorised; torch's costs four times as much
    highest = products[every, best]
    products[every, best] = -np.inf
    unsure = np.flatnonzero(products.max(axis=1) >= highest - np.float32(window))
    if len(unsure):
        products[every, best] = highest
        row, cluster = np.nonzero(products[unsure] >= (highest[unsure] - np.float32(window))[:, None])
        score = _score(vectors[unsure[row]], centroids[cluster])
        ranked = np.lexsort((cluster, -score, row))
        firsts = ranked[np.flatnonzero(np.diff(row[ranked], prepend=-1))]
        best[unsure] = cluster[firsts]
    return best.astype(np.int32)


def _score(x: Float16[np.ndarray, "#b d"], c: Float32[np.ndarray, "#b d"]) -> Float64[np.ndarray, "b"]:
    """Row by row fp64 inner products, added in NumPy's fixed pairwise order."""
    return (x.astype(np.float64) * c).sum(axis=1)


def _unit(vectors: Float64[np.ndarray, "k d"]) -> Float32[np.ndarray, "k d"]:
    return (vectors / np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))).astype(np.float32)


def _inertia(total: PartSums, centroids: Float32[np.ndarray, "k d"]) -> float:
    """Σ |x - c|² over unit vectors, from their sums: 2·(N - Σ c·sums)."""
    return 2.0 * float(total.counts.sum() - (total.sums * centroids).sum())


def _add(parts: Iterable[PartSums]) -> PartSums:
    """Totals over parts, added in part order."""
    rest = iter(parts)
    first = next(rest)
    sums, counts = first.sums.copy(), first.counts.copy()
    for part in rest:
        sums += part.sums
        counts += part.counts
    return PartSums(sums=sums, counts=counts)


def _open_and_sum(part: Part, centroids: Float32[np.ndarray, "k d"]) -> PartSums:
    return partial_sums(part(), centroids)


def _sample(parts: Sequence[Part], num_rows: int, *, seed: int) -> Sequence[Part]:
    """The parts with `num_rows` of their rows: one drawn from each of `num_rows` equal runs of rows."""
    lengths = [len(part()) for part in parts]
    total = sum(lengths)
    if num_rows >= total:
        return parts
    starts = np.arange(num_rows + 1) * total // num_rows
    widths = np.diff(starts)
    rows = starts[:-1] + (np.random.default_rng(seed).random(num_rows) * widths).astype(np.int64)
    ends = np.cumsum(lengths)
    cuts = np.searchsorted(rows, ends)
    chosen = np.split(rows, cuts[:-1])
    return [
        partial(_take, part, own - (end - length))
        for part, own, end, length in zip(parts, chosen, ends, lengths, strict=True)
    ]


def _take(part: Part, rows: Int64[np.ndarray, "r"]) -> Float16[np.ndarray, "r d"]:
    return np.asarray(part()[rows])


def _blocks(num_rows: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size))
