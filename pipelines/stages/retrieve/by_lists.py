"""Retrieval by FAISS's inverted lists: an index is trained once, then built and searched shard by shard.

A shard is a run of the pool's parts, a unit of work and of resume. Its item searches for all queries, of
every curated pool that asks for such an index, and once more exactly for some of them: what share of the
exact neighbours was found is the recall of the result, which is refused under the one that is asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, FileRef, Item, Receipt, Step, Work, digest_of
from pipelines.rows.groups import group_digest, make_groups
from pipelines.rows.parts import Part, gather_vectors, read_array, roles
from pipelines.rows.ranks import id_rank
from pipelines.stages.retrieve.neighbours import exact_neighbours, queries_of, surviving

Found = tuple[FileRef, FileRef]  # rows and scores of a block of queries, in one group of the pool

# What an index is made from; the rest says how it is searched.
_IN_INDEX = {"codes", "refine", "memory_bytes", "shard_rows", "num_lists", "pq_bytes", "sample_rows_per_list"}


@dataclass(frozen=True)
class IvfSearch:
    """What one curated pool asks of the index.

    step, item: `retrieve`, and of it; has work to do. cuts: blocks of the pool's queries, whose results lie
    in files of their own; there is one. rule: by sample, searched by inverted lists.
    """

    pool: str
    step: Step
    item: Item
    cuts: tuple[tuple[int, int], ...]
    rule: SampleRetrieval

    @property
    def lists(self) -> str:
        """Equal for searches that one built index answers."""
        ivf, train = self.rule.ivf, _make_train_step(self.step, self.rule)
        return digest_of(train.identity(self.item), ivf.num_probes, ivf.device)


def run_ivf(
    runner: Runner, searches: Sequence[IvfSearch]
) -> tuple[dict[str, Item], list[tuple[Step, list[Item]]]]:
    """Search in shards: an index is trained once, and each shard built once, for all that it answers.

    Returns:
        For every pool the item of `retrieve` with what was found, for the step's own task to put together;
        and the inner steps that are to be forgotten once all of these are done.

    Raises:
        ConfigError: no index fits.
    """
    found: dict[str, Item] = {}
    inner: list[tuple[Step, list[Item]]] = []
    together: dict[str, list[IvfSearch]] = {}
    for search in searches:
        together.setdefault(search.lists, []).append(search)
    for group in together.values():
        inner += _search_shards(runner, group, found)
    return found, inner


def _search_shards(
    runner: Runner, searches: Sequence[IvfSearch], found: dict[str, Item]
) -> list[tuple[Step, list[Item]]]:
    first = searches[0]
    rule, payload = first.rule, first.item.payload
    train = _make_train_step(first.step, rule)
    [index] = runner.run_inside(train, [first.item])
    search = _make_search_step(searches)
    shared = {
        **payload,
        "cuts": tuple(one.cuts for one in searches),
        "index": index.file(runner.run_dir, "index.npy"),
        "spec": index.facts["spec"],
        "margin": index.facts["margin"],
    }
    searched = [part for part in payload["parts"] if part.role == "uncurated"]
    groups = make_groups(searched, [part.num_rows for part in searched], rows=rule.ivf.shard_rows)
    inputs = digest_of(first.item.inputs)
    items = [Item((inputs, index.digest, group_digest(g)), {**shared, "group": g}) for g in groups]
    with runner.progress.step(search.name, total=len(items), done=0) as advance:
        receipts = runner.run_inside(search, items, advance=advance)

    def files(receipt: Receipt, name: str) -> Found:
        row, score = (receipt.file(runner.run_dir, f"{kind}-{name}.npy") for kind in ("row", "score"))
        return row, score

    for place, one in enumerate(searches):
        blocks = tuple(tuple(files(r, f"{place}-{cut}") for r in receipts) for cut in range(len(one.cuts)))
        truth = tuple(files(r, f"{place}-truth") for r in receipts)
        results = {"blocks": blocks, "truth": truth, "spec": index.facts["spec"]}
        found[one.pool] = replace(one.item, payload={**one.item.payload, **results})
    return [(search, items), (train, [first.item])]


def _make_train_step(step: Step, rule: SampleRetrieval) -> Step:
    """The same for every pool that asks for such an index."""
    seed = step.config["seed"]
    trained_by = {**rule.ivf.model_dump(mode="json", include=_IN_INDEX), "seed": seed}
    load = partial(_load_train, rule, seed)
    return Step("retrieve_index", 1, trained_by, load, "task", "retrieve", step.threads)


def _make_search_step(searches: Sequence[IvfSearch]) -> Step:
    first = searches[0]
    load = partial(_load_shard, tuple((one.pool, one.rule) for one in searches), first.step.config["seed"])
    num_gpus = int(first.rule.ivf.device == "gpu")
    config = {"searches": [_asked(one.step) for one in searches]}
    return Step("retrieve_shards", 3, config, load, "task", "retrieve", first.step.threads, num_gpus=num_gpus)


def _asked(step: Step) -> dict[str, Any]:
    """What is refused for too little recall is there when less is asked for."""
    rule = dict(step.config["rule"])
    rule["ivf"] = {name: value for name, value in rule["ivf"].items() if name != "min_recall"}
    return {**step.config, "rule": rule}


def judge_recall(
    found: TopK, truth: TopK, *, spec: Mapping[str, Any], rule: SampleRetrieval, seed: int
) -> dict[str, Any]:
    """The facts of a search: its index, and its recall.

    Args:
        found: of all queries.
        truth: of the sampled ones, exact.
        spec: fields of `IvfSpec`.
        rule: that they are searched by.
        seed: of the run.

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


def _load_shard(searches: Sequence[tuple[str, SampleRetrieval]], seed: int) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        payload = attempt.payload
        parts, clusters, group = payload["parts"], payload["clusters"], payload["group"]
        ivf = searches[0][1].ivf
        # An index is trained for any number of probes and candidates: these are the searches'.
        searched = {"num_probes": min(ivf.num_probes, payload["spec"]["num_lists"])}
        spec = replace(IvfSpec(**payload["spec"]), **searched)
        for _, rule in searches:
            check_limits(spec, k=rule.neighbours, device=ivf.device)
        trained = TrainedIvf(spec, np.array(read_array(payload["index"])), payload["margin"])
        # Rows count within the group meanwhile, so that what breaks ties is of its size and not of the run's.
        rows, vectors = surviving(group, clusters)
        every = np.concatenate([np.arange(part.offset, part.offset + part.num_rows) for part in group])
        shard = IvfShard(np.searchsorted(every, rows), vectors, trained, device=ivf.device)
        tie_rank = id_rank(group)
        for place, ((pool, rule), cuts) in enumerate(zip(searches, payload["cuts"], strict=True)):
            queries, k = queries_of(parts, clusters, pool), rule.neighbours
            for number, (start, stop) in enumerate(cuts):
                asked = gather_vectors(parts, "embeddings", queries[start:stop])
                found = shard.nearest(asked, k=k, tie_rank=tie_rank)
                index = np.where(found.index < 0, -1, every[found.index])
                _write(attempt, f"{place}-{number}", TopK(index, found.score))
            sampled = queries[_sampled(len(queries), rule, seed)]
            exact = exact_neighbours(parts, clusters, sampled, group=group, neighbours=k)
            _write(attempt, f"{place}-truth", exact)
        return {"num_rows": len(rows)}

    return work


def _write(attempt: Attempt, name: str, found: TopK) -> None:
    storage.write_vectors(attempt.out / f"row-{name}.npy", found.index)
    storage.write_vectors(attempt.out / f"score-{name}.npy", found.score)
