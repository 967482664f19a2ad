"""Joins blocks of rows into edges: each pair of blocks is a unit of work and of resume of its own.

Rows with equal hashes, descriptors or miniatures are collapsed within a block before it is joined with
another, each kind for itself, so that a placeholder a million times over adds a star to each block and an
edge to each pair of blocks. A picture of poor hash has edges by its pixels alone.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Protocol

import numpy as np
from jaxtyping import Int64, UInt64

from curation.dedup.edges import Edges
from curation.search.backend import Backend
from curation.search.binary import hamming_pairs
from curation.search.collapse import collapsed_pairs
from curation.search.edges import Pairs
from curation.search.miniatures import miniature_pairs
from pipelines.engine.digest import Unhashed
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, Facts, Item, Step, Work
from pipelines.rows.arrow_columns import numbers
from pipelines.rows.parts import column, sha256_words
from pipelines.stages.copies.blocks import HASHES_AND_VECTORS, Block, copy_vectors, joined_rows
from pipelines.stages.copies.poor_pictures import gather_miniatures, is_poor
from pipelines.stages.copies.saved_edges import EDGES_FILE, EdgeFile, write_edges


@dataclass(frozen=True)
class JoinRule:
    """What makes an edge, and the settings of the join; None switches a kind off.

    Args:
        cosine_threshold: of what is saved, which for dedup may lie below what decides (`edge_floor`).
        pixels: whether rows, all of which have one, are compared by their miniatures.
        every_left: whether each row of the left block wants edges of its own, not one row for its hash. Of
            rows of the right block that are equal, the one with the smallest image id stands for all.
    """

    phash_radius: int | None = None
    cosine_threshold: float | None = None
    pca_radius: int | None = None
    pixels: bool = False
    max_edges_per_row: int | None = None
    every_left: bool = False
    backend: Annotated[Backend, Unhashed("the same edges on each")] = "torch"
    threads: Annotated[int, Unhashed("the same edges on any number of cores")] = 1


@dataclass(frozen=True)
class JoinTask:
    """A pair of blocks, wherever they stand."""

    left: Block
    right: Block
    is_self: bool  # the two are one: equal ones at two places are not


class BlockPairs(Protocol):
    """The pairs of blocks that are joined by some of the parts' files."""

    def __call__(self, files: Sequence[str], *, only_pixels: bool = False) -> list[tuple[Block, Block]]: ...


def join_by_kinds(runner: Runner, stage: str, rule: JoinRule, pairs: BlockPairs) -> tuple[EdgeFile, ...]:
    """Every kind of edge in use, in a step for each file that it hangs on: a new PCA leaves other edges."""
    edges: tuple[EdgeFile, ...] = ()
    every = JoinRule(max_edges_per_row=rule.max_edges_per_row, every_left=rule.every_left)
    if rule.phash_radius is not None or rule.cosine_threshold is not None:
        first = replace(rule, pca_radius=None, pixels=False)
        edges += join(runner, f"{stage}_edges", stage, pairs(HASHES_AND_VECTORS), first)
    if rule.pca_radius is not None:
        # `described` has the ids: the smallest stands for equal hashes.
        files = ("described", "pca_hashes") if rule.every_left else ("pca_hashes",)
        by_pca = replace(every, pca_radius=rule.pca_radius)
        edges += join(runner, f"{stage}_pca_edges", stage, pairs(files), by_pca)
    if rule.pixels and (few := pairs(("described",), only_pixels=True)):
        edges += join(runner, f"{stage}_pixel_edges", stage, few, replace(every, pixels=True))
    return edges


def join(
    runner: Runner, name: str, stage: str, pairs: Sequence[tuple[Block, Block]], rule: JoinRule
) -> tuple[EdgeFile, ...]:
    """The edges of every pair of blocks."""
    num_gpus = int(rule.backend == "cuda" and rule.cosine_threshold is not None)
    step = Step(name, 4, rule, _load, stage, rule.threads, num_gpus=num_gpus)
    items = [Item(JoinTask(left, right, left is right)) for left, right in pairs]
    files = [receipt.file(runner.run_dir, EDGES_FILE) for receipt in runner.run(step, items)]
    return tuple(
        EdgeFile(file, left.first_row, right.first_row)
        for file, (left, right) in zip(files, pairs, strict=True)
    )


def _load(rule: JoinRule) -> Work[JoinTask]:
    def work(attempt: Attempt[JoinTask]) -> Facts:
        left, right = attempt.task.left, attempt.task.right
        found = dict(_search(attempt.task, rule))
        pieces = []
        for kind, pairs in found.items():
            order = np.lexsort((pairs.b, pairs.a))
            a, b = pairs.a[order] - left.first_row, pairs.b[order] - right.first_row
            pieces.append(Edges.of_kind(kind, a, b, pairs.score[order]))
        write_edges(attempt.out / EDGES_FILE, Edges.joined(pieces))
        return facts_of(found.values())

    return work


def facts_of(found: Collection[Pairs]) -> Facts:
    """What a join tells of the pairs that it found."""
    return {
        "num_edges": sum(len(pairs.a) for pairs in found),
        "num_hub_rows": sum(pairs.num_hub_rows for pairs in found),
        "num_dropped": sum(pairs.num_dropped for pairs in found),
        "largest_group": max((pairs.largest_group for pairs in found), default=0),
    }


def _search(task: JoinTask, rule: JoinRule) -> Iterator[tuple[str, Pairs]]:
    """Pairs of every kind by global rows."""
    rows_a = joined_rows(task.left)
    rows_b = rows_a if task.is_self else joined_rows(task.right)
    if rule.every_left:
        rows_b = rows_b[_by_id(task.right, rows_b)]
    if rule.phash_radius is not None:
        yield "phash", _hash_pairs(task, rows_a, rows_b, rule=rule, radius=rule.phash_radius)
    if rule.pca_radius is not None:
        yield "pca_hash", _hash_pairs(task, rows_a, rows_b, rule=rule, radius=rule.pca_radius, by_pca=True)
    if rule.pixels:
        yield "pixels", _pixel_pairs(task, rows_a, rows_b, rule=rule)
    if rule.cosine_threshold is not None:
        yield "cosine", _cosine_pairs(task, rows_a, rows_b, rule=rule, threshold=rule.cosine_threshold)


def _hash_pairs(
    task: JoinTask,
    rows_a: np.ndarray,
    rows_b: np.ndarray,
    *,
    rule: JoinRule,
    radius: int,
    by_pca: bool = False,
) -> Pairs:
    """Pairs of pictures with near hashes."""
    a, hashes_a = _hashes(task.left, rows_a, by_pca=by_pca)
    b, hashes_b = (a, hashes_a) if task.is_self else _hashes(task.right, rows_b, by_pca=by_pca)
    pairs = hamming_pairs(
        hashes_a,
        hashes_b,
        radius=radius,
        same=task.is_self,
        every_a=rule.every_left,
        max_edges_per_row=rule.max_edges_per_row,
    )
    return replace(pairs, a=a[pairs.a], b=b[pairs.b])


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
    from curation.search.exact import cosine_pairs  # torch: seconds, which no dry run waits for

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
    block: Block, rows: Int64[np.ndarray, " m"], *, by_pca: bool
) -> tuple[Int64[np.ndarray, " k"], UInt64[np.ndarray, " k"]]:
    """The rows that have a hash that knows enough, and their hashes."""
    hashes = column(block.parts, *(("pca_hashes", "pca_hash") if by_pca else ("described", "phash")))
    has = hashes.is_valid().to_numpy()
    if not by_pca:  # PCA hashes are made of no picture of poor hash
        has &= ~is_poor(block.parts)
    has = has[rows - block.first_row]
    return rows[has], numbers(hashes, null=0)[rows[has] - block.first_row]


def _vectors(block: Block, rows: Int64[np.ndarray, " m"]) -> np.ndarray:
    """The copy descriptors of rows in any order; zeros for pictures of poor hash."""
    ascending, place = np.unique(rows, return_inverse=True)
    return copy_vectors(block, ascending)[place]
