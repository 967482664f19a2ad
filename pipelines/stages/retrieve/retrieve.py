"""retrieve: for every curated pool, the surviving pool images that resemble it.

By sample, a large search is cut into items: a block of queries against a group of the pool's parts, or, by
inverted lists, all queries against one. Their results are put together by the step's own task and removed
once that is published; an exact search gives the same bytes as one that is not cut.

What does the work is imported where it is loaded: it brings torch, for which no dry run waits.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int64

from curation import storage
from curation.retrieve import ClusterRetrieval, Retrieval, SampleRetrieval
from curation.search.ivf_config import IvfConfig
from pipelines.config.run_config import RunConfig
from pipelines.engine.inner import InnerSteps, run_in_steps
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, Facts, FileRef, Item, Receipt, Step, Work
from pipelines.rows.groups import make_groups
from pipelines.rows.parts import Part, read_array, roles
from pipelines.stages.cluster.cluster import Clusters
from pipelines.stages.retrieve.by_lists import IvfSearch, forget_lists, run_ivf
from pipelines.stages.retrieve.neighbours import found_in, query_rows
from pipelines.stages.retrieve.tasks import (
    HITS_FILE,
    QUERIES_FILE,
    BlockSettings,
    BlockTask,
    Cuts,
    Labels,
    QueriesSettings,
    QueriesTask,
    RetrieveSettings,
    RetrieveTask,
    Searched,
)

# An item searches so many queries, which bounds vectors and results in memory, …
QUERY_ROWS = 1 << 16
# … in about so many rows of the pool: a minute of two cores at 384 dimensions.
TARGET_ROWS = 1 << 20


RetrieveStep = Step[RetrieveSettings, RetrieveTask]


def retrieve(
    runner: Runner, config: RunConfig, parts: Sequence[Part], clusters: Clusters
) -> dict[str, FileRef]:
    """The hits of every curated pool, as `schema.HITS`, in pool order."""
    asked: dict[str, tuple[RetrieveStep, Item[RetrieveTask]]] = {}
    every = tuple(parts)
    for name, pool in config.pools.items():
        if pool.role == "curated":
            settings = _settings(name, pool.retrieval, config.seed)
            step = Step("retrieve", 1, settings, _load, "retrieve", config.executor.threads)
            labels = Labels(clusters.cluster, clusters.score) if settings.rule.method == "cluster" else None
            asked[name] = step, Item(RetrieveTask(every, clusters.alive, labels))
    by_lists = {
        name: IvfSearch(name, rule, (), every, clusters.alive, config.seed, step.threads)
        for name, (step, _) in asked.items()
        if (rule := step.settings.rule).method == "sample" and rule.search == "ivf"
    }
    to_do = (_cut(search) for name, search in by_lists.items() if runner.has_to_do(*asked[name]))
    found = run_ivf(runner, [search for search in to_do if search is not None])
    receipts = {
        name: _put_together(runner, step, item, found[name]) if name in found else _search(runner, step, item)
        for name, (step, item) in asked.items()
    }
    if runner.executor is not None:  # a dry run changes nothing
        forget_lists(runner, by_lists.values())
    return {name: receipt.file(runner.run_dir, HITS_FILE) for name, receipt in receipts.items()}


def _settings(pool: str, rule: Retrieval, seed: int) -> RetrieveSettings:
    """What changes the result: an exact search draws no lots, and nothing that is said of lists matters."""
    match rule:
        case ClusterRetrieval() | SampleRetrieval(search="ivf"):
            return RetrieveSettings(pool, rule, seed)
        case SampleRetrieval():
            return RetrieveSettings(pool, rule.model_copy(update={"ivf": IvfConfig()}), None)
    return RetrieveSettings(pool, rule, None)


def _cut(search: IvfSearch) -> IvfSearch | None:
    """A pool's search with its queries; None where there are none, or nothing to be found."""
    cuts = cut_queries(len(query_rows(search.parts, search.alive, search.pool)))
    if not cuts or not np.any(read_array(search.alive) & roles(search.parts, "uncurated")):
        return None
    return replace(search, cuts=cuts)


def cut_queries(num_queries: int) -> Cuts:
    """Blocks of queries."""
    return tuple((start, min(start + QUERY_ROWS, num_queries)) for start in range(0, num_queries, QUERY_ROWS))


def _put_together(
    runner: Runner, step: RetrieveStep, item: Item[RetrieveTask], searched: Searched
) -> Receipt:
    return runner.run_one(step, replace(item, task=replace(item.task, searched=searched)))


def _search(runner: Runner, step: RetrieveStep, item: Item[RetrieveTask]) -> Receipt:
    """Do a pool's search, in items of its own where it is large; by clusters there is none."""
    rule, task = step.settings.rule, item.task
    if rule.method != "sample" or not runner.has_to_do(step, item):
        return runner.run_one(step, item)
    queries = query_rows(task.parts, task.alive, step.settings.pool)
    cuts = cut_queries(len(queries))
    searched = [part for part in task.parts if part.role == "uncurated"]
    groups = make_groups(searched, [part.num_rows for part in searched], rows=TARGET_ROWS)
    num_gpus = int(rule.device == "cuda")
    if len(cuts) * len(groups) <= 1:
        return runner.run_one(replace(step, num_gpus=num_gpus), item)

    def make(inner: InnerSteps) -> Item[RetrieveTask]:
        settings = QueriesSettings(step.settings.pool)
        list_queries = Step("retrieve_queries", 1, settings, _load_queries, "retrieve")
        [listed] = inner.run(list_queries, [Item(QueriesTask(task.parts, task.alive))])
        file = listed.file(runner.run_dir, QUERIES_FILE)
        of_cut = [(cut, _with_rows(task.parts, queries[slice(*cut)])) for cut in cuts]  # each is hashed once
        blocks = [BlockTask(file, cut, own, group, task.alive) for cut, own in of_cut for group in groups]
        wanted = BlockSettings(rule.neighbours, rule.device)
        search = Step("retrieve_blocks", 2, wanted, _load_block, "retrieve", step.threads, num_gpus=num_gpus)
        found = [
            found_in(receipt, runner.run_dir) for receipt in inner.run_shown(search, list(map(Item, blocks)))
        ]
        starts = range(0, len(found), len(groups))
        by_cut = tuple(tuple(found[start : start + len(groups)]) for start in starts)
        return replace(item, task=replace(task, searched=Searched(by_cut)))

    return run_in_steps(runner, step, item, make)


def _with_rows(parts: Sequence[Part], rows: Int64[np.ndarray, " m"]) -> tuple[Part, ...]:
    """The parts from that of the first row to that of the last."""
    return tuple(p for p in parts if p.offset <= rows[-1] and rows[0] < p.offset + p.num_rows)


def _load(settings: RetrieveSettings) -> Work[RetrieveTask]:
    from pipelines.stages.retrieve.find_hits import load_hits

    return load_hits(settings)


def _load_queries(settings: QueriesSettings) -> Work[QueriesTask]:
    def work(attempt: Attempt[QueriesTask]) -> Facts:
        queries = query_rows(attempt.task.parts, attempt.task.alive, settings.pool)
        storage.write_vectors(attempt.out / QUERIES_FILE, queries)
        return {"num_queries": len(queries)}

    return work


def _load_block(settings: BlockSettings) -> Work[BlockTask]:
    from pipelines.stages.retrieve.find_hits import load_block

    return load_block(settings)
