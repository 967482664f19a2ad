"""The nearest surviving pool images of curated ones, in a group of the pool's parts, exactly."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from curation import storage
from curation.search.backend import Device
from curation.search.topk import TopK, top_k
from pipelines.engine.step import FileRef
from pipelines.rows.parts import Part, read_array, vector_blocks
from pipelines.rows.ranks import id_rank
from pipelines.stages.retrieve.neighbours import Found, Queries, files_of, rows_of


def exact_neighbours(
    queries: Queries, group: Sequence[Part], *, alive: FileRef, neighbours: int, device: Device = "cpu"
) -> TopK:
    """The rows of some parts that are nearest to the queries, of those that survive by `alive`."""
    if not group:
        shape = (len(queries.rows), neighbours)
        return TopK(np.full(shape, -1, np.int64), np.full(shape, -np.inf))
    # Rows count within the group meanwhile, so that what breaks ties is of its size and not of the run's.
    rows = rows_of(group)
    searched = vector_blocks(group, "embeddings", rows[read_array(alive)[rows]])
    blocks = ((np.searchsorted(rows, mine), vectors) for mine, vectors in searched)
    found = top_k(queries.vectors(), blocks, k=neighbours, tie_rank=id_rank(group), device=device)
    return TopK(np.where(found.index < 0, -1, rows[found.index]), found.score)


def write_found(out: Path, found: TopK, name: str = "") -> None:
    """Leave what was found in the folder of an item; by a name where there are several."""
    for file, values in zip(files_of(name), (found.index, found.score), strict=True):
        storage.write_vectors(out / file, values)


def read_found(found: Found) -> TopK:
    """What an item has found."""
    row, score = found
    return TopK(read_array(row), read_array(score))
