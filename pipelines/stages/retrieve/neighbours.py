"""The nearest surviving pool images of curated ones, in a group of the pool's parts, exactly."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float16, Int64

from curation.search.product import Device
from curation.search.topk import TopK, top_k
from pipelines.rows.parts import Part, gather_vectors, in_pools, read_array
from pipelines.rows.ranks import id_rank
from pipelines.stages.cluster.cluster import Clusters


def queries_of(parts: Sequence[Part], clusters: Clusters, pool: str) -> Int64[np.ndarray, " q"]:
    """The surviving images of a curated pool: global rows, ascending."""
    return np.flatnonzero(read_array(clusters.alive) & in_pools(parts, [pool]))


def surviving(
    parts: Sequence[Part], clusters: Clusters
) -> tuple[Int64[np.ndarray, " m"], Float16[np.ndarray, "m d"]]:
    """Global rows and embeddings of the survivors of some parts."""
    alive = read_array(clusters.alive)
    rows = [part.offset + np.flatnonzero(alive[part.offset : part.offset + part.num_rows]) for part in parts]
    every = np.concatenate([np.zeros(0, np.int64), *rows])
    return every, gather_vectors(parts, "embeddings", every)


def exact_neighbours(
    parts: Sequence[Part],
    clusters: Clusters,
    queries: Int64[np.ndarray, " q"],
    *,
    group: Sequence[Part],
    neighbours: int,
    device: Device = "cpu",
) -> TopK:
    """The surviving rows of some parts that are nearest to the queries.

    Args:
        parts: of the run.
        clusters: says who survives.
        queries: global rows, ascending.
        group: the parts to search.
        neighbours: for each query.
        device: what searches.
    """
    if not group:
        shape = (len(queries), neighbours)
        return TopK(np.full(shape, -1, np.int64), np.full(shape, -np.inf))
    alive = read_array(clusters.alive)
    # Rows count within the group meanwhile, so that what breaks ties is of its size and not of the run's.
    rows = np.concatenate([np.arange(part.offset, part.offset + part.num_rows) for part in group])
    starts = np.cumsum([0, *(part.num_rows for part in group)])

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for part, start in zip(group, starts[:-1], strict=True):
            mine = np.flatnonzero(alive[part.offset : part.offset + part.num_rows])
            if len(mine):
                yield mine + start, np.asarray(read_array(part.embeddings)[mine])

    vectors = gather_vectors(parts, "embeddings", queries)
    found = top_k(vectors, blocks(), k=neighbours, tie_rank=id_rank(group), device=device)
    return TopK(np.where(found.index < 0, -1, rows[found.index]), found.score)
