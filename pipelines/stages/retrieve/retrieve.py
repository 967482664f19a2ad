"""retrieve: for every curated pool, the surviving pool images that resemble it.

By sample, a large search is cut into items: a block of queries against a group of the pool's parts, or, by
inverted lists, all queries against one. Their results are put together by the step's own task and removed
once that is published; an exact search gives the same bytes as one that is not cut.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from curation import storage
from curation.retrieve import (
    ClusterRetrieval,
    Members,
    Retrieval,
    SampleRetrieval,
    retrieval_counts,
    retrieve_by_cluster,
    retrieve_by_sample,
)
from curation.schema import HITS
from curation.search.topk import TopK, merge_top_k
from pipelines.config.run_config import RunConfig
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, FileRef, Item, Receipt, Step, Work, digest_of
from pipelines.rows.groups import group_digest, make_groups
from pipelines.rows.parts import Part, read_array, roles
from pipelines.rows.ranks import id_rank
from pipelines.stages.cluster.cluster import Clusters
from pipelines.stages.retrieve.by_lists import Found, IvfSearch, judge_recall, run_ivf
from pipelines.stages.retrieve.neighbours import exact_neighbours, queries_of

# An item searches so many queries, which bounds vectors and results in memory, …
QUERY_ROWS = 1 << 16
# … in about so many rows of the pool: a minute of two cores at 384 dimensions.
TARGET_ROWS = 1 << 20


def retrieve(
    runner: Runner, config: RunConfig, parts: Sequence[Part], clusters: Clusters
) -> dict[str, FileRef]:
    """The hits of every curated pool, as `schema.HITS`, in pool order."""
    inputs = tuple(part.digest("described", "embeddings") for part in parts)
    asked: dict[str, tuple[Step, Item, Retrieval]] = {}
    for name, pool in config.pools.items():
        if pool.role == "curated":
            rule = pool.retrieval
            settings = {"pool": name, **_settings(rule, config.seed)}
            load = partial(_load, name, rule, config.seed)
            step = Step("retrieve", 1, settings, load, "task", "retrieve", config.describe.embed.threads)
            # By sample, clusters do not matter: who survives does.
            made_from = clusters.digest if rule.method == "cluster" else clusters.alive.sha256
            item = Item((*inputs, made_from), {"parts": tuple(parts), "clusters": clusters})
            asked[name] = step, item, rule
    searches = [
        search
        for name, (step, item, rule) in asked.items()
        if (search := _ivf_search(runner, step, item, pool=name, rule=rule))
    ]
    found, inner = run_ivf(runner, searches)
    receipts = {
        name: _run(runner, step, found.get(name, item), pool=name, rule=rule)
        for name, (step, item, rule) in asked.items()
    }
    for step, items in inner:
        runner.forget(step, items)
    return {name: receipt.file(runner.run_dir, "hits.parquet") for name, receipt in receipts.items()}


def _ivf_search(runner: Runner, step: Step, item: Item, *, pool: str, rule: Retrieval) -> IvfSearch | None:
    """What the pool has to ask of inverted lists, if anything."""
    if rule.method != "sample" or rule.search != "ivf" or not runner.has_to_do(step, item):
        return None
    parts, clusters = item.payload["parts"], item.payload["clusters"]
    cuts = _cuts(len(queries_of(parts, clusters, pool)))
    if not cuts or not np.any(read_array(clusters.alive) & roles(parts, "uncurated")):
        return None
    return IvfSearch(pool, step, item, cuts, rule)


def _cuts(num_queries: int) -> tuple[tuple[int, int], ...]:
    return tuple((start, min(start + QUERY_ROWS, num_queries)) for start in range(0, num_queries, QUERY_ROWS))


def _settings(rule: Retrieval, seed: int) -> dict[str, Any]:
    """What changes the result."""
    if rule.method == "cluster" or (rule.method == "sample" and rule.search == "ivf"):
        return {"rule": rule.model_dump(mode="json", exclude={"device"}), "seed": seed}
    return {"rule": rule.model_dump(mode="json", exclude={"device", "ivf"})}


def _run(runner: Runner, step: Step, item: Item, *, pool: str, rule: Retrieval) -> Receipt:
    if rule.method != "sample" or "blocks" in item.payload or not runner.has_to_do(step, item):
        return runner.run_one(step, item)
    parts, clusters = item.payload["parts"], item.payload["clusters"]
    queries = queries_of(parts, clusters, pool)
    cuts = _cuts(len(queries))
    searched = [part for part in parts if part.role == "uncurated"]
    groups = make_groups(searched, [part.num_rows for part in searched], rows=TARGET_ROWS)
    num_gpus = int(rule.device == "cuda")
    if len(cuts) * len(groups) <= 1:
        return runner.run_one(replace(step, num_gpus=num_gpus), item)
    list_queries = Step(
        "retrieve_queries", 1, {"pool": pool}, partial(_load_queries, pool), "task", "retrieve"
    )
    [listed] = runner.run_inside(list_queries, [item])
    file, inputs = listed.file(runner.run_dir, "queries.npy"), digest_of(item.inputs)
    load = partial(_load_block, rule)
    search = Step(
        "retrieve_blocks", 2, step.config, load, "task", "retrieve", step.threads, num_gpus=num_gpus
    )
    items = [
        Item(
            (inputs, str(cut), group_digest(group)),
            {"queries": file, "cut": cut, "parts": asking, "clusters": clusters, "group": group},
        )
        for cut, asking in zip(cuts, (_with_rows(parts, queries[slice(*cut)]) for cut in cuts), strict=True)
        for group in groups
    ]
    with runner.progress.step(search.name, total=len(items), done=0) as advance:
        receipts = runner.run_inside(search, items, advance=advance)
    files = [(r.file(runner.run_dir, "row.npy"), r.file(runner.run_dir, "score.npy")) for r in receipts]
    blocks = tuple(tuple(files[i : i + len(groups)]) for i in range(0, len(files), len(groups)))
    receipt = runner.run_one(step, replace(item, payload={**item.payload, "blocks": blocks}))
    runner.forget(search, items)
    runner.forget(list_queries, [item])
    return receipt


def _with_rows(parts: Sequence[Part], rows: Int64[np.ndarray, " m"]) -> tuple[Part, ...]:
    """The parts from that of the first row to that of the last."""
    return tuple(p for p in parts if p.offset <= rows[-1] and rows[0] < p.offset + p.num_rows)


def _load_queries(pool: str) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        queries = queries_of(attempt.payload["parts"], attempt.payload["clusters"], pool)
        storage.write_vectors(attempt.out / "queries.npy", queries)
        return {"num_queries": len(queries)}

    return work


def _load_block(rule: SampleRetrieval) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        payload = attempt.payload
        queries = np.asarray(read_array(payload["queries"])[slice(*payload["cut"])])
        found = exact_neighbours(
            payload["parts"],
            payload["clusters"],
            queries,
            group=payload["group"],
            neighbours=rule.neighbours,
            device=rule.device,
        )
        storage.write_vectors(attempt.out / "row.npy", found.index)
        storage.write_vectors(attempt.out / "score.npy", found.score)
        return {}

    return work


def _load(pool: str, rule: Retrieval, seed: int) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        parts: tuple[Part, ...] = attempt.payload["parts"]
        clusters: Clusters = attempt.payload["clusters"]
        queries = queries_of(parts, clusters, pool)
        facts: dict[str, Any] = {}
        if rule.method == "none":
            hits = HITS.empty_table()
        elif rule.method == "cluster":
            hits = _by_cluster(parts, clusters, queries, rule=rule, seed=seed)
        elif "blocks" in attempt.payload:
            found = _merge(parts, attempt.payload["blocks"])
            hits = retrieve_by_sample(queries, found.index, score=found.score)
            if "truth" in attempt.payload:
                truth = _merge(parts, [attempt.payload["truth"]])
                facts = judge_recall(found, truth, spec=attempt.payload["spec"], rule=rule, seed=seed)
        else:
            group = [part for part in parts if part.role == "uncurated"]
            found = exact_neighbours(
                parts, clusters, queries, group=group, neighbours=rule.neighbours, device=rule.device
            )
            hits = retrieve_by_sample(queries, found.index, score=found.score)
        storage.write_table(attempt.out / "hits.parquet", hits)
        counts = retrieval_counts(hits)
        counted = {"nominal": counts.nominal, "unique": counts.unique}
        return {"pool": pool, "num_queries": len(queries), **counted, **facts}

    return work


def _by_cluster(
    parts: Sequence[Part],
    clusters: Clusters,
    queries: Int64[np.ndarray, " q"],
    *,
    rule: ClusterRetrieval,
    seed: int,
) -> pa.Table:
    label, score, rank = read_array(clusters.cluster), read_array(clusters.score), id_rank(parts)

    def members(rows: np.ndarray) -> Members:
        return Members(rows, np.asarray(label[rows]), np.asarray(score[rows]), rank[rows])

    targets = np.flatnonzero(read_array(clusters.alive) & roles(parts, "uncurated"))
    return retrieve_by_cluster(members(queries), members(targets), config=rule, seed=seed)


def _merge(parts: Sequence[Part], blocks: Sequence[Sequence[Found]]) -> TopK:
    """The best of what every block of queries found in the groups of the pool."""
    rank = id_rank(parts)
    merged = [
        merge_top_k([TopK(read_array(row), read_array(score)) for row, score in block], tie_rank=rank)
        for block in blocks
    ]
    index, score = (np.concatenate([getattr(one, name) for one in merged]) for name in ("index", "score"))
    return TopK(index, score)
