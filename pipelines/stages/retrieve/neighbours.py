"""Curated images that ask for neighbours, and where a search leaves what it found."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float16, Int64

from pipelines.engine.step import FileRef, Receipt
from pipelines.rows.parts import Part, gather_vectors, in_pools, read_array

Found = tuple[FileRef, FileRef]  # rows and scores of a block of queries, in one group of the pool


@dataclass(frozen=True)
class Queries:
    """Curated images that ask for their neighbours: global rows, ascending, and parts that they lie in."""

    parts: Sequence[Part]
    rows: Int64[np.ndarray, " q"]

    def vectors(self) -> Float16[np.ndarray, "q d"]:
        """Their embeddings."""
        return gather_vectors(self.parts, "embeddings", self.rows)


def query_rows(parts: Sequence[Part], alive: FileRef, pool: str) -> Int64[np.ndarray, " q"]:
    """The surviving images of a curated pool: global rows, ascending."""
    return np.flatnonzero(read_array(alive) & in_pools(parts, [pool]))


def rows_of(parts: Sequence[Part]) -> Int64[np.ndarray, " n"]:
    """All global rows of some parts."""
    return np.concatenate([np.arange(part.offset, part.offset + part.num_rows) for part in parts])


def found_in(receipt: Receipt, run_dir: str, name: str = "") -> Found:
    """Where an item has left what it found."""
    row, score = (receipt.file(run_dir, file) for file in files_of(name))
    return row, score


def files_of(name: str) -> tuple[str, str]:
    """The files of rows and of scores, in the folder of an item."""
    suffix = f"-{name}" if name else ""
    return f"row{suffix}.npy", f"score{suffix}.npy"
