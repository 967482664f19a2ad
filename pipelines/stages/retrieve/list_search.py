"""The work of a search by inverted lists: an index is trained, shards are searched, recall is judged."""

from dataclasses import asdict, replace

import numpy as np
from jaxtyping import Int64

from curation import storage
from curation.cluster.schedule import sample_rows
from curation.retrieve import SampleRetrieval
from curation.search.ivf import IvfShard, TrainedIvf, check_limits, choose_index, train_index
from curation.search.ivf_config import IvfSpec
from curation.search.product import nonzero_rows
from curation.search.recall import require_top_k_recall, top_k_recall
from curation.search.topk import TopK
from pipelines.engine.step import Attempt, Facts, Work
from pipelines.rows.parts import gather_vectors, read_array, roles
from pipelines.rows.ranks import id_rank
from pipelines.stages.retrieve.exact_search import exact_neighbours, write_found
from pipelines.stages.retrieve.neighbours import Queries, query_rows, rows_of
from pipelines.stages.retrieve.tasks import (
    INDEX_FILE,
    IndexSettings,
    IndexTask,
    SearchSettings,
    SearchTask,
)


def judge_recall(found: TopK, truth: TopK, *, spec: IvfSpec, rule: SampleRetrieval, seed: int) -> Facts:
    """The facts of a search: its index, and its recall.

    Args:
        found: of all queries.
        truth: of the sampled ones, exact.
        spec, rule, seed: of the search.

    Raises:
        ConfigError: the recall is under the one asked for.
    """
    index = spec.factory()
    sampled = _sampled(len(found.index), rule.ivf.recall_rows, seed=seed)
    recall = top_k_recall(found.score[sampled], truth.score)
    require_top_k_recall(recall, min_recall=rule.ivf.min_recall, index=index, num_probes=rule.ivf.num_probes)
    return {"recall": asdict(recall), "index": index, "num_probes": rule.ivf.num_probes}


def _sampled(num_queries: int, recall_rows: int, *, seed: int) -> Int64[np.ndarray, " s"]:
    """Places among the queries of those on which recall is measured."""
    return sample_rows(num_queries, recall_rows, seed=seed)


def load_index(settings: IndexSettings) -> Work[IndexTask]:
    """An index, trained on a sample of the pool."""
    ivf, seed = settings.ivf, settings.seed

    def work(attempt: Attempt[IndexTask]) -> Facts:
        parts = attempt.task.parts
        alive = np.flatnonzero(read_array(attempt.task.alive) & roles(parts, "uncurated"))
        dim = read_array(parts[0].embeddings).shape[1]
        spec = choose_index(ivf, num_rows=len(alive), dim=dim)
        wanted = ivf.sample_rows_per_list * spec.num_lists
        if spec.codes == "pq":
            wanted = max(wanted, 256 * ivf.sample_rows_per_list)  # 256 centroids of each piece
        drawn = alive[sample_rows(len(alive), wanted, seed=seed)]
        sample = gather_vectors(parts, "embeddings", drawn)
        trained = train_index(sample[nonzero_rows(sample)], spec, seed=seed)
        storage.write_vectors(attempt.out / INDEX_FILE, trained.index)
        return {"spec": asdict(spec)}

    return work


def load_shard(settings: SearchSettings) -> Work[SearchTask]:
    """The neighbours of all queries in a shard: by its lists, and exactly of some."""

    def work(attempt: Attempt[SearchTask]) -> Facts:
        task = attempt.task
        # An index is trained for any number of probes and candidates: these are the searches'.
        spec = replace(task.spec, num_probes=min(settings.num_probes, task.spec.num_lists))
        for question in settings.questions:
            check_limits(spec, k=question.neighbours, device=settings.device)
        trained = TrainedIvf(spec, np.array(read_array(task.index)))
        # Rows count within the group meanwhile, so that what breaks ties is of its size and not of the run's.
        every = rows_of(task.group)
        rows = every[read_array(task.alive)[every]]
        vectors = gather_vectors(task.group, "embeddings", rows)
        shard = IvfShard(np.searchsorted(every, rows), vectors, trained, device=settings.device)
        tie_rank = id_rank(task.group)
        for place, (question, cuts) in enumerate(zip(settings.questions, task.cuts, strict=True)):
            queries, k = query_rows(task.parts, task.alive, question.pool), question.neighbours
            for number, (start, stop) in enumerate(cuts):
                asked = Queries(task.parts, queries[start:stop]).vectors()
                found = shard.nearest(asked, k=k, tie_rank=tie_rank)
                index = np.where(found.index < 0, -1, every[found.index])
                write_found(attempt.out, TopK(index, found.score), f"{place}-{number}")
            sampled = Queries(
                task.parts, queries[_sampled(len(queries), question.recall_rows, seed=settings.seed)]
            )
            exact = exact_neighbours(sampled, task.group, alive=task.alive, neighbours=k)
            write_found(attempt.out, exact, f"{place}-truth")
        return {"num_rows": len(rows)}

    return work
