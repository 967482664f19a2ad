"""Trains the cells of a join on sampled rows, and measures on others how many of them a row must visit.

What searches is imported where work is loaded: it brings torch, seconds that no dry run waits for.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated

import numpy as np
from jaxtyping import Float16, Int64

from curation import storage
from curation.search.cells_config import CellsConfig
from pipelines.engine.digest import Without
from pipelines.engine.step import Attempt, Facts, FileRef, Work
from pipelines.rows.parts import read_array
from pipelines.stages.copies.blocks import AtPlace, Block, joined_rows, rows_with_vectors

TRUTH = "truth.npy"


class TrainedFile(StrEnum):
    """What training puts out: the cells, and the rows on which recall is measured."""

    CENTROIDS = "centroids.npy"
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

    cosine_threshold: float
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


def load_train(settings: TrainSettings) -> Work[TrainTask]:
    """The work of training."""
    from curation.cluster.train_cells import train_cells
    from curation.search.cells import group_cells, nearest_cells

    search, seed = settings.search, settings.seed

    def work(attempt: Attempt[TrainTask]) -> Facts:
        blocks = attempt.task.blocks
        ends = np.cumsum([len(joined_rows(block)) for block in blocks])
        num_rows = int(ends[-1]) if len(ends) else 0
        num_cells = search.cells_of(num_rows)
        rng = np.random.default_rng(seed)
        vectors = _sample(blocks, ends, search.sample_rows_per_cell * num_cells, rng=rng)
        sample = _sample(blocks, ends, search.recall_rows, rng=rng)
        if not len(vectors):  # no row has a vector, so any cell will do
            vectors = np.eye(1, max(vectors.shape[1], 1), dtype=np.float16)
        num_cells = min(num_cells, len(vectors))
        centroids = train_cells(vectors, num_cells, seed=seed)
        sizes = np.bincount(nearest_cells(vectors, centroids, num_probes=1)[:, 0], minlength=num_cells)
        groups = group_cells(sizes, num_groups=search.groups_of(num_rows))
        storage.write_vectors(attempt.out / TrainedFile.CENTROIDS, centroids)
        storage.write_vectors(attempt.out / TrainedFile.SAMPLE, sample)
        return {
            "num_rows": num_rows,
            "num_cells": num_cells,
            "num_sampled": len(sample),
            "groups": groups.tolist(),
        }

    return work


def _sample(
    blocks: Sequence[Block], ends: Int64[np.ndarray, " b"], num_rows: int, *, rng: np.random.Generator
) -> Float16[np.ndarray, "s d"]:
    """The vectors of some of all rows, ascending; those without one, or of poor hash, fall away.

    Every draw takes one row of each of equal runs of rows, so that no list of all rows is held.
    """
    total = int(ends[-1]) if len(ends) else 0
    starts = np.arange(min(num_rows, total) + 1) * total // max(min(num_rows, total), 1)
    places = starts[:-1] + (rng.random(len(starts) - 1) * np.diff(starts)).astype(np.int64)
    vectors: list[np.ndarray] = []
    for block, own in zip(blocks, np.split(places, np.searchsorted(places, ends[:-1])), strict=True):
        joined = joined_rows(block)
        vectors.append(rows_with_vectors(block, joined[own - (ends[len(vectors)] - len(joined))])[1])
    return np.concatenate(vectors)


def load_truth(settings: TruthSettings) -> Work[TruthTask]:
    """The work of comparing sampled rows with all others."""
    from curation.search.recall import exact_truth

    def work(attempt: Attempt[TruthTask]) -> Facts:
        _, vectors = rows_with_vectors(attempt.task.block, joined_rows(attempt.task.block))
        sample = np.asarray(read_array(attempt.task.sample))
        centroids = np.asarray(read_array(attempt.task.centroids))
        truth = exact_truth(
            sample, vectors, centroids, threshold=settings.cosine_threshold, max_probes=settings.max_probes
        )
        table = np.stack([truth.row, truth.probes.astype(np.int64), truth.count], axis=1)
        storage.write_vectors(attempt.out / TRUTH, table)
        return {"num_pairs": int(truth.count.sum())}

    return work


def load_recall(settings: RecallSettings) -> Work[RecallTask]:
    """The work of choosing how many cells a row visits, and of telling what is found then."""
    from curation.search.recall import Truth, choose_probes, measured_recall, require_recall

    min_recall = settings.min_recall

    def work(attempt: Attempt[RecallTask]) -> Facts:
        table = np.concatenate([np.asarray(read_array(file)) for file in attempt.task.truths])
        truth = Truth(table[:, 0], table[:, 1].astype(np.int32), table[:, 2])
        num_cells = attempt.task.num_cells
        judged = np.ones(attempt.task.num_sampled, bool)
        num_probes = min(settings.num_probes or 0, num_cells)
        if not num_probes:
            judged = np.arange(len(judged)) % 2 == 1  # the others choose
            most = min(num_cells, settings.max_probes)
            num_probes = choose_probes(truth, rows=~judged, min_recall=min_recall, most=most)
        recall = measured_recall(truth, rows=judged, num_probes=num_probes)
        require_recall(recall, min_recall=min_recall, num_probes=num_probes, num_cells=num_cells)
        return {"num_cells": num_cells, "num_probes": num_probes, "recall": asdict(recall)}

    return work
