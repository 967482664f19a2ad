"""The nearest surviving pool images of curated ones, in a group of the pool's parts, exactly."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from curation import storage
from curation.search.backend import Device
from curation.search.topk import TopK, top_k
from pipelines.engine.step import FileRef
from pipelines.rows.parts import Part, read_array
from pipelines.rows.ranks import id_rank
from pipelines.stages.retrieve.neighbours import Found, Queries, files_of, of_part


def exact_neighbours(
    queries: Queries, group: Sequence[Part], *, alive: FileRef, neighbours: int, device: Device = "cpu"
) -> TopK:
    """The surviving rows of some parts that are nearest to the queries.

    Args:
        queries: of one pool.
        group: the parts to search.
        alive: says of every row of the run whether it survives.
        neighbours: for each query.
        device: what searches.
    """
    if not group:
        shape = (len(queries.rows), neighbours)
        return TopK(np.full(shape, -1, np.int64), np.full(shape, -np.inf))
    survives = read_array(alive)
    # Rows count within the group meanwhile, so that what breaks ties is of its size and not of the run's.
    rows = np.concatenate([np.arange(part.offset, part.offset + part.num_rows) for part in group])
    starts = np.cumsum([0, *(part.num_rows for part in group)])

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for part, start in zip(group, starts[:-1], strict=True):
            mine = np.flatnonzero(of_part(survives, part))
            if len(mine):
                yield mine + start, np.asarray(read_array(part.embeddings)[mine])

    found = top_k(queries.vectors(), blocks(), k=neighbours, tie_rank=id_rank(group), device=device)
    return TopK(np.where(found.index < 0, -1, rows[found.index]), found.score)


def write_found(out: Path, found: TopK, name: str = "") -> None:
    """Leave what was found in the folder of an item; by a name where there are several."""
    for file, values in zip(files_of(name), (found.index, found.score), strict=True):
        storage.write_vectors(out / file, values)


def read_found(found: Found) -> TopK:
    """What an item has found."""
    row, score = found
    return TopK(read_array(row), read_array(score))
