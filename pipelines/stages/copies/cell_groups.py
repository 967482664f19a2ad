"""Finds the cells that rows visit, and joins those that meet in a group of cells."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from curation import storage
from curation.schema import EDGES
from curation.search.cell_join import Visitors, join_cells
from curation.search.cells import nearest_cells
from curation.search.collapse import equal_vectors
from pipelines.engine.step import Attempt, Work
from pipelines.rows.parts import gather_vectors, read_array
from pipelines.stages.copies.block_vectors import rows_with_vectors
from pipelines.stages.copies.cell_tasks import (
    AssignedBlock,
    AssignedFile,
    AssignSettings,
    AssignTask,
    GroupSettings,
    GroupTask,
)
from pipelines.stages.copies.edge_files import EDGES_FILE, edge_table

# Visitors of a group are joined in chunks of so many rows: with few a cell, its product is all overhead.
CHUNK_ROWS = 131_072


def load_assign(settings: AssignSettings) -> Work[AssignTask]:
    """The work of finding the cells that the rows of a block visit."""
    groups = settings.groups

    def work(attempt: Attempt[AssignTask]) -> dict[str, Any]:
        rows, vectors = rows_with_vectors(attempt.task.block)
        centroids = np.asarray(read_array(attempt.task.centroids))
        equal = equal_vectors(vectors)
        firsts = equal.first
        first, copies = equal.stars
        stars = edge_table(rows[first], rows[copies], np.ones(len(copies)), kind="cosine")
        storage.write_table(attempt.out / AssignedFile.STARS, stars.cast(EDGES))
        rows, vectors = rows[firsts], vectors[firsts]  # its other rows are never looked at again
        cells = nearest_cells(vectors, centroids, num_probes=settings.num_probes)
        group = np.searchsorted(groups, cells, side="right") - 1
        # A row is listed once in each group that it visits.
        is_new = np.ones(group.shape, bool)
        group.sort(axis=1)
        is_new[:, 1:] = group[:, 1:] != group[:, :-1]
        row, place = np.nonzero(is_new)
        order = np.argsort(group[row, place], kind="stable")
        starts = np.searchsorted(group[row, place][order], np.arange(len(groups)))
        storage.write_vectors(attempt.out / AssignedFile.ROWS, rows)
        storage.write_vectors(attempt.out / AssignedFile.CELLS, cells)
        storage.write_vectors(attempt.out / AssignedFile.VISITS, row[order].astype(np.int32))
        storage.write_vectors(attempt.out / AssignedFile.STARTS, starts)
        return {"num_rows": len(rows), "num_visits": len(order), "largest_group": equal.largest}

    return work


def load_group(settings: GroupSettings) -> Work[GroupTask]:
    """The work of joining those that meet in a group of cells."""

    def work(attempt: Attempt[GroupTask]) -> dict[str, Any]:
        who, cells = attempt.task.blocks, attempt.task.cells
        everyone = [(one, _visits(one, attempt.task.group)) for one in who]
        residents = [(one, places[_is_home(one, places, cells)]) for one, places in everyone]
        found = join_cells(
            _members(residents),
            _chunks(everyone),
            cells=cells,
            rows=np.concatenate([read_array(one.rows)[places] for one, places in everyone]),
            threshold=settings.cosine_from,
            max_edges_per_row=settings.max_edges_per_row,
        )
        table = edge_table(found.a, found.b, found.score, kind="cosine").cast(EDGES)
        storage.write_table(attempt.out / EDGES_FILE, table)
        return {
            "num_edges": len(found.a),
            "num_hub_rows": found.num_hub_rows,
            "num_dropped": found.num_dropped,
            "largest_group": found.largest_group,
        }

    return work


def _visits(one: AssignedBlock, group: int) -> Int64[np.ndarray, " v"]:
    """Places among the block's assigned rows of those that visit the group."""
    first, last = read_array(one.starts)[group : group + 2]
    return np.asarray(read_array(one.visits)[first:last]).astype(np.int64)


def _is_home(one: AssignedBlock, places: np.ndarray, cells: range) -> Bool[np.ndarray, " v"]:
    home = read_array(one.cells)[places, 0]
    return (home >= cells.start) & (home < cells.stop)


def _chunks(everyone: list[tuple[AssignedBlock, np.ndarray]]) -> Iterator[Visitors]:
    """Runs of blocks with enough visitors."""
    run, num_rows = [], 0
    for one, places in everyone:
        run.append((one, places))
        num_rows += len(places)
        if num_rows >= CHUNK_ROWS:
            yield _members(run)
            run, num_rows = [], 0
    if run:
        yield _members(run)


def _members(chosen: list[tuple[AssignedBlock, np.ndarray]]) -> Visitors:
    rows, vectors, cells = [], [], []
    for one, places in chosen:
        mine = np.asarray(read_array(one.rows)[places])
        rows.append(mine)
        vectors.append(gather_vectors(one.block.parts, "copy_vectors", mine))
        cells.append(np.asarray(read_array(one.cells)[places]))
    return Visitors(np.concatenate(rows), np.concatenate(vectors), np.concatenate(cells))
