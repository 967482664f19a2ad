"""Rows of the lineage as pictures that a page can show; the lineage is read file by file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64, UInt64

from curation.shard.layout import GOLDEN, splitmix64
from pipelines.config.listed import read_listed


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


class Lineage:
    """The lineage of a dataset; never more than one file of it is in memory.

    Args:
        run_dir: what the paths are relative to.
        entries: `lineage` of the manifest: path and rows of every file, in the order of parts.
    """

    def __init__(self, run_dir: str, entries: Sequence[Mapping[str, Any]]) -> None:
        self._run_dir, self._entries = run_dir, entries
        self.offsets = np.cumsum([0] + [entry["rows"] for entry in entries])

    @property
    def num_rows(self) -> int:
        """Rows of all files: images that ever came in."""
        return int(self.offsets[-1])

    def columns(self, names: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """Some columns, file by file, each with the global row of its first row."""
        for entry, offset in zip(self._entries, self.offsets.tolist(), strict=False):
            yield offset, read_listed(self._run_dir, entry, list(names))

    def pictures(self, rows: Iterator[int] | Sequence[int]) -> dict[int, Picture]:
        """The pictures at some global rows; only the files that hold one are read."""
        wanted = np.unique(np.fromiter(rows, np.int64))
        bounds = np.searchsorted(wanted, self.offsets)
        found = {}
        for entry, offset, start, stop in zip(
            self._entries, self.offsets.tolist(), bounds[:-1], bounds[1:], strict=False
        ):
            if stop > start:
                mine = wanted[start:stop]
                table = read_listed(self._run_dir, entry).take(pa.array(mine - offset))
                for row, fields in zip(mine.tolist(), table.to_pylist(), strict=True):
                    found[row] = Picture(row=row, **fields)
        return found


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
