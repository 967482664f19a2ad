"""Rows of the lineage as pictures that a page can show, and which of many a page shows."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt64

from curation.shard.layout import GOLDEN, splitmix64
from pipelines.answers.lineage import Lineage


@dataclass(frozen=True)
class Picture:
    """One row of the lineage: see `schema.LINEAGE`."""

    row: int  # global
    pool: str
    key: str
    uri: str
    image_id: str | None
    width: int | None
    height: int | None
    format: str | None
    decision: str
    stage: str
    reason: str
    by_pool: str | None
    by_key: str | None
    score: float | None
    component: int | None
    cluster: int | None
    shard: str | None
    shard_index: int | None

    @property
    def is_kept(self) -> bool:
        """Whether it is in the dataset."""
        return self.decision == "kept"


@dataclass(frozen=True)
class Scored:
    """A picture, and the score or the measurement for which it is shown."""

    picture: Picture
    score: float


def pictures_at(lineage: Lineage, rows: Iterable[int]) -> dict[int, Picture]:
    """The pictures at some global rows; only the files that hold one are read."""
    return {row: Picture(row=row, **fields) for row, fields in lineage.at(rows).items()}


def draw(rows: Int64[np.ndarray, " n"], seed: int) -> UInt64[np.ndarray, " n"]:
    """A pseudo-random number for every global row; who shows a sample takes the smallest.

    A function of row and seed alone, so a sample of many files is the smallest of the files' own samples.

    Args:
        rows: int64 (n,), global rows or other numbers.
        seed: of the run.
    """
    return splitmix64(rows.astype(np.uint64) + np.uint64(seed * int(GOLDEN) % 2**64))


def sample(rows: Int64[np.ndarray, " n"], num: int, *, seed: int) -> Int64[np.ndarray, " m"]:
    """At most `num` of the rows, in the order of their draws."""
    return rows[np.argsort(draw(rows, seed), kind="stable")[:num]]
