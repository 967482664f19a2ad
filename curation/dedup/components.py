"""Components over edges, the row of each that survives, and how healthy a component is."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float16, Float64, Int64, UInt64
from numpy import ndarray

from curation import schema
from curation.dedup.forest import Forest
from curation.search.product import exact_scores, nonzero_rows


@dataclass(frozen=True)
class Copies:
    """Every row of a component of two or more, by row.

    row, representative: global rows. component: components are numbered by their representatives' rows.
    """

    row: Int64[ndarray, " r"]
    component: Int64[ndarray, " r"]
    representative: Int64[ndarray, " r"]


@dataclass(frozen=True)
class Health:
    """For every component of two or more, by number: rows, and the score of its weakest edge."""

    size: Int64[ndarray, " c"]
    weakest: Float64[ndarray, " c"]


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


def choose_representatives(labels: Int64[ndarray, " n"], rank: Int64[ndarray, " n"]) -> Copies:
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
    return Copies(row, component.astype(np.int64), representative)


def direct_scores(
    *,
    is_exact: Bool[ndarray, " r"],
    phash: tuple[UInt64[ndarray, " r"], UInt64[ndarray, " r"]] | None = None,
    vectors: tuple[Float16[ndarray, "r d"], Float16[ndarray, "r d"]] | None = None,
) -> Float64[ndarray, " r"]:
    """Score rows against their representatives directly, by the best of the kinds compared.

    A row that came in through a chain of others may score below every threshold: that is what the number
    is there to show.

    Args:
        is_exact: bool (r,), equal bytes; their score is 1.
        phash: uint64 (r,) twice, of rows and of representatives; None where hashes are not compared.
        vectors: fp16 (r, d) twice, likewise; a row of zeros is not compared.

    Returns:
        float64 (r,); 0 where nothing could be compared.
    """
    scores = np.full(len(is_exact), -np.inf)
    if phash is not None:
        scores = np.maximum(scores, 1 - np.bitwise_count(phash[0] ^ phash[1]) / 64)
    if vectors is not None:
        left, right = vectors
        both = np.flatnonzero(nonzero_rows(left) & nonzero_rows(right))
        scores[both] = np.maximum(scores[both], exact_scores(left, right, rows=both, columns=both))
    scores[np.isneginf(scores)] = 0
    scores[is_exact] = 1
    return scores


def copies_table(
    copies: Copies, *, is_exact: Bool[ndarray, " r"], scores: Float64[ndarray, " r"]
) -> pa.Table:
    """Write down every row of a component: `schema.COPIES`.

    Args:
        copies: the rows.
        is_exact: bool (r,), bytes equal to the representative's.
        scores: float64 (r,), `direct_scores`.

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


def component_health(
    copies: Copies, *, a: Int64[ndarray, " e"], b: Int64[ndarray, " e"], score: Float64[ndarray, " e"]
) -> Health:
    """Measure every component: its size, and its weakest edge.

    Args:
        copies: every row of a component of two or more.
        a: int64 (e,), rows of the edges that formed the components, `b` likewise.
        b: see `a`.
        score: float64 (e,). A pair with edges of several kinds is as strong as its strongest.

    Returns:
        Health by component number; a weakest edge of inf says that none of the edges given lies within.
    """
    num_components = int(copies.component.max(initial=-1)) + 1
    size = np.bincount(copies.component, minlength=num_components).astype(np.int64)
    weakest = np.full(num_components, np.inf)
    order = np.lexsort((-score, b, a))
    a, b, score = a[order], b[order], score[order]
    if len(a):
        strongest = np.r_[True, (a[1:] != a[:-1]) | (b[1:] != b[:-1])]
        a, score = a[strongest], score[strongest]
    place = np.minimum(np.searchsorted(copies.row, a), max(len(copies.row) - 1, 0))
    inside = copies.row[place] == a if len(copies.row) else np.zeros(len(a), bool)
    np.minimum.at(weakest, copies.component[place[inside]], score[inside])
    return Health(size, weakest)
