"""Finds the cells that rows visit, and joins those that meet in a group of cells.

What searches is imported where work is loaded: it brings torch, seconds that no dry run waits for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Int64

from curation import storage
from curation.dedup.edges import Edges
from curation.runs import batches
from curation.search.collapse import equal_vectors
from pipelines.engine.digest import OfEveryItem
from pipelines.engine.step import Attempt, Facts, FileRef, Work
from pipelines.rows.parts import gather_vectors, read_array
from pipelines.stages.copies.blocks import AtPlace, Block, joined_rows, rows_with_vectors
from pipelines.stages.copies.join import facts_of
from pipelines.stages.copies.saved_edges import EDGES_FILE, write_edges

# Visitors of a group are joined in chunks of so many rows: with few a cell, its product is all overhead.
CHUNK_ROWS = 131_072


class AssignedFile(StrEnum):
    """What is put out of a block that is assigned to cells."""

    ROWS = "rows.npy"
    CELLS = "cells.npy"
    VISITS = "visits.npy"
    STARTS = "starts.npy"
    STARS = "stars.parquet"


@dataclass(frozen=True)
class AssignSettings:
    """How many cells a row visits, and the first cell of each group of them."""

    num_probes: int
    groups: tuple[int, ...]


@dataclass(frozen=True)
class AssignTask:
    """A block, and the cells."""

    block: Annotated[Block, AtPlace()]
    centroids: FileRef


@dataclass(frozen=True)
class AssignedBlock:
    """A block, and which cells its rows visit."""

    block: Annotated[Block, AtPlace()]
    rows: FileRef
    cells: FileRef
    visits: FileRef
    starts: FileRef


# A block, and places among its assigned rows.
_Places = tuple[AssignedBlock, Int64[np.ndarray, " v"]]


@dataclass(frozen=True)
class GroupSettings:
    """What makes an edge."""

    cosine_threshold: float
    max_edges_per_row: int | None


@dataclass(frozen=True)
class GroupTask:
    """A group of cells, and all blocks, some of whose rows visit it."""

    blocks: Annotated[tuple[AssignedBlock, ...], OfEveryItem()]
    group: int
    cells: range


def load_assign(settings: AssignSettings) -> Work[AssignTask]:
    """The work of finding the cells that the rows of a block visit."""
    from curation.search.cells import nearest_cells

    groups = settings.groups

    def work(attempt: Attempt[AssignTask]) -> Facts:
        block = attempt.task.block
        rows, vectors = rows_with_vectors(block, joined_rows(block))
        centroids = np.asarray(read_array(attempt.task.centroids))
        equal = equal_vectors(vectors)
        first, copies = equal.stars
        stars = Edges.of_kind("cosine", rows[first], rows[copies], np.ones(len(copies)))
        write_edges(attempt.out / AssignedFile.STARS, stars)
        rows, vectors = rows[equal.first], vectors[equal.first]  # its other rows are never looked at again
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
    from curation.search.cell_join import Visitors, join_cells

    def work(attempt: Attempt[GroupTask]) -> Facts:
        who, cells = attempt.task.blocks, attempt.task.cells
        everyone = [(one, _visits(one, attempt.task.group)) for one in who]
        residents = [(one, places[_is_home(one, places, cells)]) for one, places in everyone]
        found = join_cells(
            Visitors(*_members(residents)),
            (Visitors(*_members(run)) for run in batches(everyone, size=_num_places, least=CHUNK_ROWS)),
            cells=cells,
            rows=np.concatenate([read_array(one.rows)[places] for one, places in everyone]),
            threshold=settings.cosine_threshold,
            max_edges_per_row=settings.max_edges_per_row,
        )
        write_edges(attempt.out / EDGES_FILE, Edges.of_kind("cosine", found.a, found.b, found.score))
        return facts_of([found])

    return work


def _visits(one: AssignedBlock, group: int) -> Int64[np.ndarray, " v"]:
    """Places among the block's assigned rows of those that visit the group."""
    first, last = read_array(one.starts)[group : group + 2]
    return np.asarray(read_array(one.visits)[first:last]).astype(np.int64)


def _is_home(one: AssignedBlock, places: np.ndarray, cells: range) -> Bool[np.ndarray, " v"]:
    home = read_array(one.cells)[places, 0]
    return np.asarray((home >= cells.start) & (home < cells.stop))


def _num_places(some: _Places) -> int:
    return len(some[1])


def _members(chosen: Sequence[_Places]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, vectors and cells of some visitors."""
    rows = [np.asarray(read_array(one.rows)[places]) for one, places in chosen]
    vectors = [
        gather_vectors(one.block.parts, "copy_vectors", mine)
        for (one, _), mine in zip(chosen, rows, strict=True)
    ]
    cells = [np.asarray(read_array(one.cells)[places]) for one, places in chosen]
    return np.concatenate(rows), np.concatenate(vectors), np.concatenate(cells)
