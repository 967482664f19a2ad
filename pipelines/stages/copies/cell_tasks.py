"""The steps of a join by cells: what each is set to, what it is given, and the files that it puts out."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from curation.search.cells_config import CellsConfig
from pipelines.engine.digest import OfEveryItem, Without
from pipelines.engine.step import FileRef
from pipelines.stages.copies.blocks import AtPlace, Block

TRUTH = "truth.npy"


class TrainedFile(StrEnum):
    """What training puts out: the cells, and the rows on which recall is measured."""

    CENTROIDS = "centroids.npy"
    SAMPLE_ROWS = "sample_rows.npy"
    SAMPLE = "sample.npy"


@dataclass(frozen=True)
class TrainSettings:
    """The cells, and the samples."""

    search: Annotated[CellsConfig, Without(("num_probes", "min_recall"), "they count once cells are trained")]
    seed: int


@dataclass(frozen=True)
class TrainTask:
    """All rows, of which samples are drawn."""

    blocks: Annotated[tuple[Block, ...], AtPlace()]


@dataclass(frozen=True)
class TruthSettings:
    """What a pair is, and how many cells it is looked for in."""

    cosine_from: float
    max_probes: int


@dataclass(frozen=True)
class TruthTask:
    """A block, with which sampled rows are compared."""

    block: Annotated[Block, AtPlace()]
    centroids: FileRef
    sample: FileRef


@dataclass(frozen=True)
class RecallSettings:
    """The recall asked for, and the cells that a row visits; None: they are chosen, at most so many."""

    num_probes: int | None
    min_recall: float
    max_probes: int


@dataclass(frozen=True)
class RecallTask:
    """What sampled rows have been found to have in each block."""

    truths: tuple[FileRef, ...]
    num_sampled: int
    num_cells: int


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


@dataclass(frozen=True)
class GroupSettings:
    """What makes an edge."""

    cosine_from: float
    max_edges_per_row: int | None


@dataclass(frozen=True)
class GroupTask:
    """A group of cells, and all blocks, some of whose rows visit it."""

    blocks: Annotated[tuple[AssignedBlock, ...], OfEveryItem()]
    group: int
    cells: range
