"""retrieve: for every curated pool, the surviving pool images that resemble it."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from curation import storage
from curation.retrieve import Members, Retrieval, retrieval_counts, retrieve_by_cluster, retrieve_by_sample
from curation.search.topk import top_k
from pipelines.config import RunConfig
from pipelines.parts import Part, gather_vectors, in_pool, read_array, roles, vector_blocks
from pipelines.runner import Runner
from pipelines.stages.cluster import Clusters
from pipelines.stages.ranks import id_rank
from pipelines.step import Attempt, FileRef, Item, Step, Work

# Queries searched at a time: bounds the vectors and results in memory.
QUERY_ROWS = 1 << 16


def retrieve(
    runner: Runner, config: RunConfig, parts: Sequence[Part], clusters: Clusters
) -> dict[str, FileRef]:
    """The hits of every curated pool, as `schema.HITS`, in pool order."""
    inputs = (*(part.digest("described", "embeddings") for part in parts), clusters.digest)
    found = {}
    for name, pool in config.pools.items():
        if pool.role == "curated":
            settings = {"pool": name, "rule": pool.retrieval.model_dump(mode="json"), "seed": config.seed}
            load = partial(_load, name, pool.retrieval, config.seed)
            step = Step("retrieve", 1, settings, load, "task", "retrieve", config.describe.embed.threads)
            receipt = runner.run_one(step, Item(inputs, {"parts": tuple(parts), "clusters": clusters}))
            found[name] = receipt.file(runner.run_dir, "hits.parquet")
    return found


def _load(pool: str, rule: Retrieval, seed: int) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        parts: tuple[Part, ...] = attempt.payload["parts"]
        clusters: Clusters = attempt.payload["clusters"]
        alive = read_array(clusters.alive)
        queries = np.flatnonzero(alive & in_pool(parts, pool))
        targets = np.flatnonzero(alive & roles(parts, "uncurated"))
        rank = id_rank(parts)
        if rule.method == "sample":
            hits = _by_sample(parts, queries, targets, rank=rank, neighbours=rule.neighbours)
        else:
            label, score = read_array(clusters.cluster), read_array(clusters.score)

            def members(rows: np.ndarray) -> Members:
                return Members(rows, np.asarray(label[rows]), np.asarray(score[rows]), rank[rows])

            hits = retrieve_by_cluster(members(queries), members(targets), config=rule, seed=seed)
        storage.write_table(attempt.out / "hits.parquet", hits)
        counts = retrieval_counts(hits)
        return {"pool": pool, "num_queries": len(queries), "nominal": counts.nominal, "unique": counts.unique}

    return work


def _by_sample(
    parts: Sequence[Part], queries: np.ndarray, targets: np.ndarray, *, rank: np.ndarray, neighbours: int
) -> Any:
    index = np.full((len(queries), neighbours), -1, np.int64)
    score = np.full((len(queries), neighbours), -np.inf)
    for start in range(0, len(queries), QUERY_ROWS):
        cut = slice(start, start + QUERY_ROWS)
        found = top_k(
            gather_vectors(parts, "embeddings", queries[cut]),
            vector_blocks(parts, "embeddings", targets),
            k=neighbours,
            tie_rank=rank,
        )
        index[cut], score[cut] = found.index, found.score
    return retrieve_by_sample(queries, index, score=score)
