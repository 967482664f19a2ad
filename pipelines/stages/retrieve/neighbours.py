"""Curated images that ask for neighbours, those that may be, and where a search leaves what it found."""

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


def surviving(
    parts: Sequence[Part], alive: FileRef
) -> tuple[Int64[np.ndarray, " m"], Float16[np.ndarray, "m d"]]:
    """Global rows and embeddings of the survivors of some parts."""
    survives = read_array(alive)
    rows = [part.offset + np.flatnonzero(of_part(survives, part)) for part in parts]
    every = np.concatenate([np.zeros(0, np.int64), *rows])
    return every, gather_vectors(parts, "embeddings", every)


def of_part(values: np.ndarray, part: Part) -> np.ndarray:
    """The values of a part's rows, out of those of all."""
    return values[part.offset : part.offset + part.num_rows]


def found_in(receipt: Receipt, run_dir: str, name: str = "") -> Found:
    """Where an item has left what it found."""
    row, score = (receipt.file(run_dir, file) for file in files_of(name))
    return row, score


def files_of(name: str) -> tuple[str, str]:
    """The files of rows and of scores, in the folder of an item."""
    suffix = f"-{name}" if name else ""
    return f"row{suffix}.npy", f"score{suffix}.npy"
