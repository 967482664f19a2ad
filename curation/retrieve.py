"""Which pool images resemble the curated ones: by sample or by cluster.

*By sample*: the nearest pool images of every curated image, found by `curation.search`. *By cluster*: the
pool is clustered, curated images fall into its clusters, and every cluster with enough of them gives
images, up to a quota. The paper uses the first for curated sets above a million images, the second below.

The paper leaves open in what order a cluster gives its images, and what the cap of a dataset cuts first.
Here: closest to the centroid first (or a seeded shuffle), and under the cap every cluster gives its first
image before any gives its second.

Source: arXiv:2304.07193, §3 and appendix A.4.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Float32, Int32, Int64
from pydantic import BaseModel, ConfigDict, Field

from curation.runs import place_in_run
from curation.schema import HITS
from curation.search.ivf_config import IvfConfig


class SampleRetrieval(BaseModel):
    """The nearest pool images of every curated image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["sample"] = "sample"
    neighbours: int = Field(
        4, ge=1, description="pool images for each curated image (the paper: 4, and 32 for ImageNet-1k)"
    )
    search: Literal["exact", "ivf"] = Field(
        "exact",
        description="exact: every curated image with every pool image; ivf: FAISS's inverted lists, whose "
        "recall is measured",
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu", description="what an exact search runs on; the same results. cuda: one GPU for each worker"
    )
    ivf: IvfConfig = Field(default_factory=IvfConfig, description="the index, where search is ivf")


class ClusterRetrieval(BaseModel):
    """A quota of images from every cluster of the pool that curated images fall into."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["cluster"] = "cluster"
    min_seed_hits: int = Field(
        4, ge=1, description="curated images a cluster needs before it gives any (the paper: more than 3)"
    )
    per_cluster: int = Field(10_000, ge=1, description="images that one cluster gives at most")
    cap: int = Field(1_000_000, ge=1, description="images in all, for this curated pool")
    order: Literal["closest", "random"] = Field(
        "closest", description="which images a cluster gives first: those nearest its centroid, or a shuffle"
    )


class NoRetrieval(BaseModel):
    """The curated images are taken as they are, and bring in nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["none"]


Retrieval = Annotated[SampleRetrieval | ClusterRetrieval | NoRetrieval, Field(discriminator="method")]


@dataclass(frozen=True)
class RetrievalCounts:
    """How many images were retrieved: every hit counted, and every image counted once."""

    nominal: int
    unique: int


@dataclass(frozen=True)
class PoolMembers:
    """Images of a pool that were assigned to clusters, in any order."""

    row: Int64[np.ndarray, "m"]  # global
    cluster: Int32[np.ndarray, "m"]
    score: Float32[np.ndarray, "m"]  # similarity to the cluster's centroid
    id_rank: Int64[np.ndarray, "m"]  # place of the image id in the order of ids; breaks ties


def retrieve_by_sample(
    query_rows: Int64[np.ndarray, "q"],
    index: Int64[np.ndarray, "q k"],
    *,
    score: Float[np.ndarray, "q k"],
) -> pa.Table:
    """Hits of curated images from their nearest neighbours.

    Args:
        query_rows: global rows of the curated images.
        index: global rows of each one's nearest pool images, nearest first; -1 where the pool ran out.
        score: their inner products.

    Returns:
        `schema.HITS`, query by query, nearest first.

    Source: arXiv:2304.07193, appendix A.4, sample-based retrieval.
    """
    found = index >= 0
    rank = np.broadcast_to(np.arange(index.shape[1], dtype=np.int32), index.shape)
    query = np.broadcast_to(query_rows[:, None], index.shape)
    return _hits(
        index[found], query[found], score[found].astype(np.float64), rank=rank[found], method="sample"
    )


def retrieve_by_cluster(
    seeds: PoolMembers,
    pool: PoolMembers,
    *,
    config: ClusterRetrieval,
    seed: int,
) -> pa.Table:
    """Hits of a curated pool from the clusters that its images fall into.

    Args:
        seeds: the curated images, assigned to the clusters of the pool.
        pool: the pool's images.
        config: seed hits, quota, cap and order.
        seed: of the shuffle where `order` is random.

    Returns:
        `schema.HITS`, cluster by cluster in the order taken. `query` is the curated image of that cluster
        closest to the centroid, `score` the similarity of the retrieved image to the centroid, `rank` its
        place in the order in which the cluster gives its images.

    Source: arXiv:2304.07193, appendix A.4, cluster-based retrieval.
    """
    num_clusters = 1 + int(max(seeds.cluster.max(initial=-1), pool.cluster.max(initial=-1)))
    num_seeds = np.bincount(seeds.cluster, minlength=num_clusters)
    candidates = np.flatnonzero((num_seeds >= config.min_seed_hits)[pool.cluster])
    ordered, rank = _in_order(candidates, pool, config=config, seed=seed)
    if len(ordered) > config.cap:
        cluster = pool.cluster[ordered]
        kept = np.sort(np.lexsort((cluster, -num_seeds[cluster], rank))[: config.cap])
        ordered, rank = ordered[kept], rank[kept]
    cause = _closest_seed(seeds, num_clusters)
    return _hits(
        pool.row[ordered],
        cause[pool.cluster[ordered]],
        pool.score[ordered].astype(np.float64),
        rank=rank.astype(np.int32),
        method="cluster",
    )


def _in_order(
    candidates: Int64[np.ndarray, "c"], pool: PoolMembers, *, config: ClusterRetrieval, seed: int
) -> tuple[Int64[np.ndarray, "g"], Int64[np.ndarray, "g"]]:
    """What clusters give, one after another, by place in the pool; and the rank of each in its own."""
    by_id = candidates[np.lexsort((pool.row[candidates], pool.id_rank[candidates]))]
    match config.order:
        case "closest":
            ordered = by_id[np.argsort(-pool.score[by_id], kind="stable")]
        case "random":
            ordered = np.random.default_rng(seed).permutation(by_id)
    ordered = ordered[np.argsort(pool.cluster[ordered], kind="stable")]
    rank = place_in_run(pool.cluster[ordered])
    taken = rank < config.per_cluster
    return ordered[taken], rank[taken]


def retrieval_counts(hits: pa.Table) -> RetrievalCounts:
    """Nominal and unique counts of `schema.HITS` (the paper's Table 15 gives nominal ones)."""
    return RetrievalCounts(nominal=hits.num_rows, unique=pc.count_distinct(hits["row"]).as_py())


def _closest_seed(seeds: PoolMembers, num_clusters: int) -> Int64[np.ndarray, "k"]:
    """For every cluster the global row of its seed closest to the centroid; -1 where it has none."""
    order = np.lexsort((seeds.row, seeds.id_rank, -seeds.score, seeds.cluster))
    clusters, first = np.unique(seeds.cluster[order], return_index=True)
    closest = np.full(num_clusters, -1, np.int64)
    closest[clusters] = seeds.row[order[first]]
    return closest


def _hits(
    row: Int64[np.ndarray, "h"],
    query: Int64[np.ndarray, "h"],
    score: Float[np.ndarray, "h"],
    *,
    rank: Int32[np.ndarray, "h"],
    method: Literal["sample", "cluster"],
) -> pa.Table:
    methods = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(row), np.int8)), pa.array([method]))
    return pa.Table.from_arrays(
        [pa.array(row), pa.array(query), pa.array(score), pa.array(rank), methods], schema=HITS
    )
