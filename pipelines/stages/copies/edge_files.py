"""The edges of a pair of blocks, as they are saved."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curation.schema import EDGE_KINDS, EDGES
from pipelines.engine.step import FileRef
from pipelines.rows.parts import read

EDGES_FILE = "edges.parquet"


@dataclass(frozen=True)
class EdgeFile:
    """The edges of a pair of blocks; in the file a row counts from its block's first row."""

    file: FileRef
    first_a: int
    first_b: int


def edge_table(a: np.ndarray, b: np.ndarray, score: np.ndarray, *, kind: str) -> pa.Table:
    """Edges of one kind as `schema.EDGES`."""
    kinds = np.full(len(a), EDGE_KINDS.index(kind), np.int8)
    codes = pa.DictionaryArray.from_arrays(pa.array(kinds), pa.array(EDGE_KINDS))
    return pa.Table.from_arrays([pa.array(a), pa.array(b), pa.array(score), codes], schema=EDGES)


def global_edges(edges: EdgeFile) -> pa.Table:
    """The edges of a pair of blocks by global rows: `schema.EDGES`."""
    table = read(edges.file)
    a, b = table["a"].to_numpy() + edges.first_a, table["b"].to_numpy() + edges.first_b
    return pa.Table.from_arrays([pa.array(a), pa.array(b), table["score"], table["kind"]], schema=EDGES)
