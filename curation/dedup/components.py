"""Components over edges, and the row of each that survives."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from curation import schema
from curation.dedup.forest import Forest


@dataclass(frozen=True)
class CopyRows:
    """Every row of a component of two or more, by row.

    row, representative: global rows. component: components are numbered by their representatives' rows.
    """

    row: Int64[ndarray, " r"]
    component: Int64[ndarray, " r"]
    representative: Int64[ndarray, " r"]


def components(num_rows: int, a: Int64[ndarray, " e"], b: Int64[ndarray, " e"]) -> Int64[ndarray, " n"]:
    """Label the connected components of a graph by their smallest rows.

    Args:
        num_rows: n, global rows.
        a: int64 (e,), one end of every edge.
        b: int64 (e,), the other.

    Returns:
        int64 (n,): the smallest row of each row's component, whatever the order of the edges.
    """
    forest = Forest(num_rows)
    forest.join(a, b)
    return forest.labels()


def choose_representatives(labels: Int64[ndarray, " n"], rank: Int64[ndarray, " n"]) -> CopyRows:
    """Choose of every component of two or more the row of best rank.

    Args:
        labels: int64 (n,), any numbers that are equal within a component only.
        rank: int64 (n,), `survivor_order`: smaller survives, no two equal.

    Returns:
        Copies, by row.
    """
    by_label = np.lexsort((rank, labels))
    sorted_labels = labels[by_label]
    starts = np.flatnonzero(np.r_[True, sorted_labels[1:] != sorted_labels[:-1]]) if len(labels) else by_label
    sizes = np.diff(np.r_[starts, len(labels)])
    representative = np.empty(len(labels), np.int64)
    representative[by_label] = np.repeat(by_label[starts], sizes)
    size = np.empty(len(labels), np.int64)
    size[by_label] = np.repeat(sizes, sizes)
    row = np.flatnonzero(size > 1)
    representative = representative[row]
    _, component = np.unique(representative, return_inverse=True)
    return CopyRows(row, component.astype(np.int64), representative)


def copies_table(
    copies: CopyRows, *, is_exact: Bool[ndarray, " r"], scores: Float64[ndarray, " r"]
) -> pa.Table:
    """Write down every row of a component: `schema.COPIES`.

    Args:
        copies: the rows.
        is_exact: bool (r,), bytes equal to the representative's.
        scores: float64 (r,), of each row with its representative, compared directly.

    Returns:
        Table by row; the representative itself has no reason, and score 1.
    """
    is_copy = copies.row != copies.representative
    reason = np.where(is_exact, "exact_copy", "near_copy")
    columns = [
        pa.array(copies.row),
        pa.array(copies.component),
        pa.array(copies.representative),
        pa.array(reason.tolist(), pa.string(), mask=~is_copy),
        pa.array(np.where(is_copy, scores, 1.0)),
    ]
    return pa.Table.from_arrays(columns, schema=schema.COPIES)
