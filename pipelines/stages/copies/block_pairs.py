"""The edges between the rows of two blocks, by every kind in use.

Rows with equal hashes, descriptors or miniatures are collapsed within a block before it is joined with
another, each kind for itself, so that a placeholder a million times over adds a star to each block and an
edge to each pair of blocks. A picture of poor hash has edges by its pixels alone.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64, UInt64

from curation import storage
from curation.schema import EDGES
from curation.search.binary import hamming_pairs
from curation.search.collapse import collapsed_pairs
from curation.search.edges import Pairs
from curation.search.exact import cosine_pairs
from curation.search.miniatures import miniature_pairs
from pipelines.engine.step import Attempt, Work
from pipelines.rows.arrow_columns import numbers
from pipelines.rows.parts import column, gather_vectors, sha256_words
from pipelines.stages.copies.blocks import Block, joined_rows
from pipelines.stages.copies.edge_files import EDGES_FILE, edge_table
from pipelines.stages.copies.join_rule import JoinRule, JoinTask
from pipelines.stages.copies.poor_pictures import gather_miniatures, is_poor


def load_join(rule: JoinRule) -> Work[JoinTask]:
    """The work of joining a pair of blocks."""

    def work(attempt: Attempt[JoinTask]) -> dict[str, Any]:
        left, right = attempt.task.left, attempt.task.right
        tables, hubs, dropped, largest = [], 0, 0, 0
        for kind, found in _search(attempt.task, rule):
            order = np.lexsort((found.b, found.a))
            a, b = found.a[order] - left.first_row, found.b[order] - right.first_row
            tables.append(edge_table(a, b, found.score[order], kind=kind))
            hubs, dropped = hubs + found.num_hub_rows, dropped + found.num_dropped
            largest = max(largest, found.largest_group)
        storage.write_table(attempt.out / EDGES_FILE, pa.concat_tables([EDGES.empty_table(), *tables]))
        return {
            "num_edges": sum(map(len, tables)),
            "num_hub_rows": hubs,
            "num_dropped": dropped,
            "largest_group": largest,
        }

    return work


def _search(task: JoinTask, rule: JoinRule) -> Iterator[tuple[str, Pairs]]:
    """Pairs of every kind by global rows."""
    rows_a = joined_rows(task.left)
    rows_b = rows_a if task.is_self else joined_rows(task.right)
    if rule.every_left:
        rows_b = rows_b[_by_id(task.right, rows_b)]
    for kind, file, radius in (
        ("phash", "described", rule.phash_radius),
        ("pca_hash", "pca_hashes", rule.pca_radius),
    ):
        if radius is not None:
            a, hashes_a = _hashes(task.left, rows_a, file=file, name=kind)
            b, hashes_b = a, hashes_a
            if not task.is_self:
                b, hashes_b = _hashes(task.right, rows_b, file=file, name=kind)
            pairs = hamming_pairs(
                hashes_a,
                hashes_b,
                radius=radius,
                same=task.is_self,
                every_a=rule.every_left,
                max_edges_per_row=rule.max_edges_per_row,
            )
            yield kind, replace(pairs, a=a[pairs.a], b=b[pairs.b])
    if rule.pixels:
        yield "pixels", _pixel_pairs(task, rows_a, rows_b, rule=rule)
    if rule.cosine_from is not None:
        yield "cosine", _cosine_pairs(task, rows_a, rows_b, rule=rule, threshold=rule.cosine_from)


def _pixel_pairs(task: JoinTask, rows_a: np.ndarray, rows_b: np.ndarray, *, rule: JoinRule) -> Pairs:
    """Pairs of pictures with equal pixels, to within what re-encoding changes."""
    small_a = gather_miniatures(task.left.parts, rows_a)
    pairs = miniature_pairs(
        small_a,
        small_a if task.is_self else gather_miniatures(task.right.parts, rows_b),
        same=task.is_self,
        every_a=rule.every_left,
        max_edges_per_row=rule.max_edges_per_row,
    )
    return replace(pairs, a=rows_a[pairs.a], b=rows_b[pairs.b])


def _cosine_pairs(
    task: JoinTask, rows_a: np.ndarray, rows_b: np.ndarray, *, rule: JoinRule, threshold: float
) -> Pairs:
    """Pairs of pictures with near copy descriptors."""
    v = _vectors(task.left, rows_a)
    w = v if task.is_self else _vectors(task.right, rows_b)
    search = partial(
        cosine_pairs,
        threshold=threshold,
        same=task.is_self,
        backend=rule.backend,
        max_edges_per_row=rule.max_edges_per_row,
    )
    pairs = collapsed_pairs(v, w, same=task.is_self, every_a=rule.every_left, search=search)
    return replace(pairs, a=rows_a[pairs.a], b=rows_b[pairs.b])


def _by_id(block: Block, rows: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """The order of rows by image id, then row."""
    words = sha256_words(block.parts)[rows - block.first_row]
    return np.lexsort((words[:, 1], words[:, 0]))


def _hashes(
    block: Block, rows: Int64[np.ndarray, " m"], *, file: str, name: str
) -> tuple[Int64[np.ndarray, " k"], UInt64[np.ndarray, " k"]]:
    """The rows that have a hash that knows enough, and their hashes."""
    hashes = column(block.parts, file, name)
    has = hashes.is_valid().to_numpy()
    if file == "described":  # PCA hashes are not made of the others
        has &= ~is_poor(block.parts)
    has = has[rows - block.first_row]
    return rows[has], numbers(hashes, null=0)[rows[has] - block.first_row]


def _vectors(block: Block, rows: Int64[np.ndarray, " m"]) -> np.ndarray:
    """The copy descriptors of rows in any order; zeros for pictures of poor hash."""
    ascending = np.argsort(rows)
    vectors = gather_vectors(block.parts, "copy_vectors", rows[ascending])
    vectors[is_poor(block.parts)[rows[ascending] - block.first_row]] = 0
    if (ascending[1:] > ascending[:-1]).all():
        return vectors
    place = np.empty(len(rows), np.int64)
    place[ascending] = np.arange(len(rows))
    return vectors[place]
