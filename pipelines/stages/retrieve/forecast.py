"""What retrieval and selection have to do: a step for each curated pool, in blocks if it is large."""

from collections.abc import Iterator
from dataclasses import replace

from curation.retrieve import SampleRetrieval
from pipelines.rows.groups import num_groups
from pipelines.stages.cluster.forecast import num_clusters
from pipelines.stages.forecast import Sizes, StepForecast
from pipelines.stages.retrieve.retrieve import QUERY_ROWS, TARGET_ROWS, cut_queries

# Within `retrieve`, where it searches by inverted lists.
INDEX, SHARDS = LIST_STEPS = ("retrieve_index", "retrieve_shards")
# Iterations of FAISS's k-means, by which the lists of an index are trained.
_LIST_ITERATIONS = 10


def forecast_retrieve(sizes: Sizes) -> Iterator[StepForecast]:
    """The search of every curated pool."""
    n = sizes.total
    for name, pool in sizes.config.pools.items():
        queries, rule = sizes.queries(name), pool.retrieval
        if pool.role != "curated":
            continue
        if rule.method != "sample":
            by_cluster = sizes.in_one_item("retrieve", "retrieve", read=9.0 * n, held=60.0 * n)
            yield replace(by_cluster, rated_as="retrieve_by_cluster")
        elif rule.search == "ivf":
            yield from _forecast_lists(sizes, rule, queries)
        else:
            yield _forecast_exact(sizes, queries)


def _forecast_exact(sizes: Sizes, queries: int) -> StepForecast:
    cuts = max(1, len(cut_queries(queries)))
    groups = max(1, num_groups(sizes.parts_of(sizes.is_uncurated), rows=TARGET_ROWS))
    vector = 2.0 * sizes.shares.embedding_dim
    held = min(queries, QUERY_ROWS) * vector * 2 + 48.0 * min(sizes.total, TARGET_ROWS)
    return StepForecast(
        "retrieve", "retrieve", cuts * groups, "query × row", queries * sizes.pool,
        vector * (cuts * sizes.pool + groups * queries), held,
        "per curated image and pool image, by block of both",
        in_steps=cuts * groups > 1,
    )  # fmt: skip


def _forecast_lists(sizes: Sizes, rule: SampleRetrieval, queries: int) -> Iterator[StepForecast]:
    """Lists are trained on a sample; each shard of the pool is put into them and searched."""
    index, pool, vector = rule.ivf, sizes.pool, 2.0 * sizes.shares.embedding_dim
    lists, shard_rows = index.lists_of(pool), min(index.shard_rows, pool)
    trained = min(index.sample_rows_per_list * lists, pool)
    yield StepForecast(
        INDEX, "retrieve", 1, "row × list", trained * lists * _LIST_ITERATIONS, trained * vector,
        trained * vector * 3, "per row of a sample, list and iteration, in one item", within="retrieve",
    )  # fmt: skip
    shards = max(1, num_groups(sizes.parts_of(sizes.is_uncurated), rows=index.shard_rows))
    searched = queries * pool * min(index.num_probes, lists) / lists
    exact = min(index.recall_rows, queries) * pool
    held = shard_rows * vector * 2 + queries * (vector + 16 * rule.neighbours)
    yield StepForecast(
        SHARDS, "retrieve", shards, "products of vectors", pool * lists + searched + exact,
        vector * (pool + shards * queries), held,
        "per pool image and list, and per curated image and pool image in the lists that it visits, by shard",
        within="retrieve",
    )  # fmt: skip
    hits = float(queries * rule.neighbours * shards)
    yield StepForecast(
        "retrieve", "retrieve", 1, "hits merged", hits, 16 * hits, 32 * hits,
        "per hit of a curated image in a shard, in one item", rated_as="retrieve_merge",
    )  # fmt: skip


def forecast_select(sizes: Sizes) -> StepForecast:
    """What is known of every row is held at once."""
    return sizes.in_one_item("select", "select", read=50.0 * sizes.total, held=90.0 * sizes.total)


def num_kept(sizes: Sizes) -> int:
    """Images of the dataset: curated ones that enter, and what they bring in."""
    kept, hits, rules = 0, 0.0, sizes.config.select
    for name, pool in sizes.config.pools.items():
        if pool.role != "curated":
            continue
        kept += sizes.queries(name) if pool.include else 0
        rule = pool.retrieval
        match rule.method:
            case "sample":
                hits += sizes.queries(name) * rule.neighbours * sizes.shares.unique_hits
            case "cluster":
                hits += min(rule.cap, num_clusters(sizes) * rule.per_cluster)
    if rules.balanced is not None:
        hits += rules.balanced.num_images
    elif not sizes.of_role("curated"):
        hits = sizes.pool
    return kept + min(round(hits), sizes.pool, rules.max_images or sizes.pool)
