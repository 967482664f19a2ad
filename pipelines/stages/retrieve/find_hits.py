"""The hits of a curated pool: searched for at once, or put together of what blocks of a search found."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from curation import storage
from curation.retrieve import (
    ClusterRetrieval,
    PoolMembers,
    SampleRetrieval,
    retrieval_counts,
    retrieve_by_cluster,
    retrieve_by_sample,
)
from curation.schema import HITS
from curation.search.topk import TopK, merge_top_k
from pipelines.engine.step import Attempt, Facts, Work
from pipelines.rows.parts import Part, read_array, roles
from pipelines.rows.ranks import id_rank
from pipelines.stages.retrieve.exact_search import exact_neighbours, read_found, write_found
from pipelines.stages.retrieve.list_search import judge_recall
from pipelines.stages.retrieve.neighbours import Found, Queries, query_rows
from pipelines.stages.retrieve.tasks import (
    HITS_FILE,
    BlockSettings,
    BlockTask,
    RetrieveSettings,
    RetrieveTask,
)


def load_block(settings: BlockSettings) -> Work[BlockTask]:
    """The neighbours of a block of queries in a group of the pool."""

    def work(attempt: Attempt[BlockTask]) -> Facts:
        task = attempt.task
        rows = np.asarray(read_array(task.queries)[slice(*task.cut)])
        found = exact_neighbours(
            Queries(task.parts, rows),
            task.group,
            alive=task.alive,
            neighbours=settings.neighbours,
            device=settings.device,
        )
        write_found(attempt.out, found)
        return {}

    return work


def load_hits(settings: RetrieveSettings) -> Work[RetrieveTask]:
    """The hits of a pool, by sample or by cluster."""

    def work(attempt: Attempt[RetrieveTask]) -> Facts:
        task, rule = attempt.task, settings.rule
        queries = query_rows(task.parts, task.alive, settings.pool)
        facts: Facts = {}
        match rule:
            case ClusterRetrieval():
                hits = _by_cluster(task, queries, rule=rule, seed=settings.seed)
            case SampleRetrieval():
                found = _nearest(task, queries, rule)
                hits = retrieve_by_sample(queries, found.index, score=found.score)
                facts = _judged(task, found, settings)
            case _:
                hits = HITS.empty_table()
        storage.write_table(attempt.out / HITS_FILE, hits)
        counts = retrieval_counts(hits)
        counted = {"nominal": counts.nominal, "unique": counts.unique}
        return {"pool": settings.pool, "num_queries": len(queries), **counted, **facts}

    return work


def _nearest(task: RetrieveTask, rows: Int64[np.ndarray, " q"], rule: SampleRetrieval) -> TopK:
    if task.searched is not None:
        return _merge(task.parts, task.searched.blocks)
    group = [part for part in task.parts if part.role == "uncurated"]
    queries = Queries(task.parts, rows)
    return exact_neighbours(queries, group, alive=task.alive, neighbours=rule.neighbours, device=rule.device)


def _judged(task: RetrieveTask, found: TopK, settings: RetrieveSettings) -> Facts:
    """What is said of a search by inverted lists; nothing of an exact one."""
    if task.searched is None or task.searched.index is None:
        return {}
    rule, seed = settings.rule, settings.seed
    assert isinstance(rule, SampleRetrieval), "lists are for searches by sample"
    assert seed is not None, "lists are drawn by lot"
    truth = _merge(task.parts, [task.searched.truth])
    return judge_recall(found, truth, spec=task.searched.index, rule=rule, seed=seed)


def _by_cluster(
    task: RetrieveTask, queries: Int64[np.ndarray, " q"], *, rule: ClusterRetrieval, seed: int | None
) -> pa.Table:
    assert task.labels is not None, "clusters without labels"
    assert seed is not None, "a shuffle without a seed"
    label, score = read_array(task.labels.cluster), read_array(task.labels.score)
    rank = id_rank(task.parts)

    def members(rows: np.ndarray) -> PoolMembers:
        return PoolMembers(rows, np.asarray(label[rows]), np.asarray(score[rows]), rank[rows])

    targets = np.flatnonzero(read_array(task.alive) & roles(task.parts, "uncurated"))
    return retrieve_by_cluster(members(queries), members(targets), config=rule, seed=seed)


def _merge(parts: Sequence[Part], blocks: Sequence[Sequence[Found]]) -> TopK:
    """The best of what every block of queries found in the groups of the pool."""
    rank = id_rank(parts)
    merged = [merge_top_k([read_found(one) for one in block], tie_rank=rank) for block in blocks]
    index, score = (np.concatenate([getattr(one, name) for one in merged]) for name in ("index", "score"))
    return TopK(index, score)
