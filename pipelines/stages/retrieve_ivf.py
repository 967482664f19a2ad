"""Retrieval by FAISS's inverted lists: an index is trained once, then built and searched shard by shard.

A shard is a run of the pool's parts, a unit of work and of resume. Its item searches for all queries, and
once more exactly for some of them: what share of the exact neighbours was found is the recall of the result,
which is refused under the recall that the config asks for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Int64

from curation import storage
from curation.cluster.seeding import sample_rows
from curation.retrieve import SampleRetrieval
from curation.search.ivf import IvfShard, IvfSpec, TrainedIvf, check_limits, choose_index, train_index
from curation.search.product import nonzero_rows
from curation.search.recall import require_top_k_recall, top_k_recall
from curation.search.topk import TopK
from pipelines.parts import Part, gather_vectors, read_array, roles
from pipelines.runner import Runner
from pipelines.stages.groups import group_digest, make_groups
from pipelines.stages.neighbours import exact_neighbours, queries_of, surviving
from pipelines.stages.ranks import id_rank
from pipelines.step import Attempt, FileRef, Item, Receipt, Step, Work, digest_of

Found = tuple[FileRef, FileRef]  # rows and scores of a block of queries, in one group of the pool

# What an index is made from; the rest says how it is searched.
_IN_INDEX = {"codes", "refine", "memory_bytes", "shard_rows", "num_lists", "pq_bytes", "sample_rows_per_list"}


def run_ivf(
    runner: Runner,
    step: Step,
    item: Item,
    *,
    pool: str,
    cuts: Sequence[tuple[int, int]],
    rule: SampleRetrieval,
) -> Receipt:
    """Search in shards, and have the step's own task put their results together.

    Args:
        runner: of the run.
        step: `retrieve`.
        item: of it; has work to do.
        pool: the curated pool; it has a query.
        cuts: blocks of its queries, whose results lie in files of their own.
        rule: by sample, searched by inverted lists.

    Raises:
        ConfigError: no index fits, or the measured recall is under the one asked for.
    """
    train = _make_train_step(step, rule)
    [index] = runner.run_inside(train, [item])
    search = _make_search_step(step, rule, pool=pool)
    shared = {
        **item.payload,
        "cuts": tuple(cuts),
        "index": index.file(runner.run_dir, "index.npy"),
        "spec": index.facts["spec"],
        "margin": index.facts["margin"],
    }
    searched = [part for part in item.payload["parts"] if part.role == "uncurated"]
    groups = make_groups(searched, [part.num_rows for part in searched], rows=rule.ivf.shard_rows)
    inputs = digest_of(item.inputs)
    items = [Item((inputs, index.digest, group_digest(g)), {**shared, "group": g}) for g in groups]
    with runner.progress.step(search.name, total=len(items), done=0) as advance:
        receipts = runner.run_inside(search, items, advance=advance)

    def found(receipt: Receipt, name: str) -> Found:
        files = (receipt.file(runner.run_dir, f"{kind}-{name}.npy") for kind in ("row", "score"))
        return next(files), next(files)

    results = {
        "blocks": tuple(tuple(found(r, str(number)) for r in receipts) for number in range(len(cuts))),
        "truth": tuple(found(r, "truth") for r in receipts),
        "spec": index.facts["spec"],
    }
    receipt = runner.run_one(step, replace(item, payload={**item.payload, **results}))
    runner.forget(search, items)
    runner.forget(train, [item])
    return receipt


def _make_train_step(step: Step, rule: SampleRetrieval) -> Step:
    seed = step.config["seed"]
    trained_by = {**rule.ivf.model_dump(mode="json", include=_IN_INDEX), "seed": seed}
    load = partial(_load_train, rule, seed)
    return Step("retrieve_index", 1, trained_by, load, "task", "retrieve", step.threads)


def _make_search_step(step: Step, rule: SampleRetrieval, *, pool: str) -> Step:
    load = partial(_load_shard, pool, rule, step.config["seed"])
    num_gpus = int(rule.ivf.device == "gpu")
    # What is refused for too little recall is there when less is asked for.
    asked = dict(step.config["rule"])
    asked["ivf"] = {name: value for name, value in asked["ivf"].items() if name != "min_recall"}
    config = {**step.config, "rule": asked}
    return Step("retrieve_shards", 2, config, load, "task", "retrieve", step.threads, num_gpus=num_gpus)


def judge_recall(
    found: TopK, truth: TopK, *, spec: Mapping[str, Any], rule: SampleRetrieval, seed: int
) -> dict[str, Any]:
    """The facts of a search: its index, and its recall.

    Args:
        found: of all queries.
        truth: of the sampled ones, exact.
        spec: fields of `IvfSpec`.
        rule: as in `run_ivf`.
        seed: as in `run_ivf`.

    Raises:
        ConfigError: the recall is under the one asked for.
    """
    index = IvfSpec(**spec).factory()
    sampled = _sampled(len(found.index), rule, seed)
    recall = top_k_recall(found.score[sampled], truth.score)
    require_top_k_recall(recall, min_recall=rule.ivf.min_recall, index=index, num_probes=rule.ivf.num_probes)
    return {"recall": asdict(recall), "index": index, "num_probes": rule.ivf.num_probes}


def _sampled(num_queries: int, rule: SampleRetrieval, seed: int) -> Int64[np.ndarray, " s"]:
    """Places among the queries of those on which recall is measured."""
    return sample_rows(num_queries, rule.ivf.recall_rows, seed=seed)


def _load_train(rule: SampleRetrieval, seed: int) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        parts: tuple[Part, ...] = attempt.payload["parts"]
        alive = np.flatnonzero(read_array(attempt.payload["clusters"].alive) & roles(parts, "uncurated"))
        dim = read_array(parts[0].embeddings).shape[1]
        spec = choose_index(rule.ivf, num_rows=len(alive), dim=dim)
        wanted = rule.ivf.sample_rows_per_list * spec.num_lists
        if spec.codes == "pq":
            wanted = max(wanted, 256 * rule.ivf.sample_rows_per_list)  # 256 centroids of each piece
        drawn = alive[sample_rows(len(alive), wanted, seed=seed)]
        sample = gather_vectors(parts, "embeddings", drawn)
        trained = train_index(sample[nonzero_rows(sample)], spec, seed=seed)
        storage.write_vectors(attempt.out / "index.npy", trained.index)
        return {"spec": asdict(spec), "margin": trained.margin}

    return work


def _load_shard(pool: str, rule: SampleRetrieval, seed: int) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        payload = attempt.payload
        parts, clusters, group = payload["parts"], payload["clusters"], payload["group"]
        queries, k = queries_of(parts, clusters, pool), rule.neighbours
        # An index is trained for any number of probes and candidates: these are the search's.
        searched = {"num_probes": min(rule.ivf.num_probes, payload["spec"]["num_lists"])}
        spec = replace(IvfSpec(**payload["spec"]), **searched)
        check_limits(spec, k=k, device=rule.ivf.device)
        trained = TrainedIvf(spec, np.array(read_array(payload["index"])), payload["margin"])
        # Rows count within the group meanwhile, so that what breaks ties is of its size and not of the run's.
        rows, vectors = surviving(group, clusters)
        every = np.concatenate([np.arange(part.offset, part.offset + part.num_rows) for part in group])
        shard = IvfShard(np.searchsorted(every, rows), vectors, trained, device=rule.ivf.device)
        tie_rank = id_rank(group)
        for number, (start, stop) in enumerate(payload["cuts"]):
            asked = gather_vectors(parts, "embeddings", queries[start:stop])
            found = shard.nearest(asked, k=k, tie_rank=tie_rank)
            _write(attempt, str(number), TopK(np.where(found.index < 0, -1, every[found.index]), found.score))
        sampled = queries[_sampled(len(queries), rule, seed)]
        exact = exact_neighbours(parts, clusters, sampled, group=group, neighbours=k)
        _write(attempt, "truth", exact)
        return {"num_rows": len(rows)}

    return work


def _write(attempt: Attempt, name: str, found: TopK) -> None:
    storage.write_vectors(attempt.out / f"row-{name}.npy", found.index)
    storage.write_vectors(attempt.out / f"score-{name}.npy", found.score)
