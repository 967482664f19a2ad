"""Joins blocks of rows into edges: each pair of blocks is a unit of work and of resume of its own.

Rows with equal hashes, descriptors or miniatures are collapsed within a block before it is joined with
another, each kind for itself, so that a placeholder a million times over adds a star to each block and an
edge to each pair of blocks. A picture of poor hash has edges by its pixels alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int64, UInt64

from curation import storage
from curation.schema import EDGE_KINDS, EDGES
from curation.search.binary import hamming_pairs
from curation.search.collapse import collapsed_pairs
from curation.search.edges import Pairs
from curation.search.exact import Backend, cosine_pairs
from curation.search.miniatures import miniature_pairs
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, FileRef, Item, Step, Work, digest_of
from pipelines.rows.parts import Part, as_numpy, column, gather_vectors, read, read_array, sha256_words
from pipelines.stages.copies.poor_pictures import gather_miniatures, is_poor


@dataclass(frozen=True)
class Block:
    """A run of parts of one pool, and which of their rows take part in the join.

    Its digest knows nothing of its place in the run: a pool that grows leaves the blocks of others, and its
    own whole ones, as they are, and so the edges between them.
    """

    parts: tuple[Part, ...]
    rows: FileRef  # ascending global rows, of this block and others
    digest: str

    @property
    def first_row(self) -> int:
        """Global row of the block's first row."""
        return self.parts[0].offset


@dataclass(frozen=True)
class EdgeFile:
    """The edges of a pair of blocks; in the file a row counts from its block's first row."""

    file: FileRef
    first_a: int
    first_b: int


@dataclass(frozen=True)
class JoinRule:
    """What makes an edge; None switches a kind off.

    Args:
        pixels: whether rows, all of which have one, are compared by their miniatures.
        every_left: whether each row of the left block wants edges of its own, not one row for its hash. Of
            rows of the right block that are equal, the one with the smallest image id stands for all.
    """

    phash_radius: int | None = None
    cosine_from: float | None = None
    pca_radius: int | None = None
    pixels: bool = False
    max_edges_per_row: int | None = None
    every_left: bool = False
    backend: Backend = "torch"
    threads: int = 1


def make_blocks(
    parts: Sequence[Part],
    rows: FileRef,
    digests: Sequence[str],
    *,
    block_rows: int,
    files: Sequence[str] = (),
    counts: Sequence[int] | None = None,
) -> list[Block]:
    """Cut parts into runs of about `block_rows` rows.

    Args:
        parts: in order.
        rows: the rows that take part.
        digests: for each part, the hash of which of its rows take part.
        block_rows: a run closes once it has so many.
        files: names of the parts' files that are joined; none: those of perceptual hashes and descriptors.
        counts: for each part, how many of its rows take part, where that may be few of them; None: all.
    """
    blocks: list[Block] = []
    run: list[tuple[Part, str]] = []
    num_rows = 0
    counts = [part.num_rows for part in parts] if counts is None else counts
    for part, digest, count in zip(parts, digests, counts, strict=True):
        if run and (num_rows >= block_rows or part.pool != run[-1][0].pool):
            blocks.append(_block(run, rows, files))
            run, num_rows = [], 0
        run.append((part, digest))
        num_rows += count
    return [*blocks, _block(run, rows, files)] if run else blocks


def _block(run: list[tuple[Part, str]], rows: FileRef, files: Sequence[str]) -> Block:
    content = [(part.content(*(files or ("described", copy_file(part)))), digest) for part, digest in run]
    return Block(tuple(part for part, _ in run), rows, digest_of(content))


def copy_file(part: Part) -> str:
    """The name of the part's file that holds copy descriptors: the embeddings, where they serve as both."""
    return "embeddings" if part.descriptors is None else "descriptors"


def row_digests(parts: Sequence[Part], rows: Int64[np.ndarray, " m"]) -> list[str]:
    """For each part the hash of which of its rows are among `rows` (ascending global rows)."""
    bounds = np.searchsorted(rows, [part.offset for part in parts] + [parts[-1].offset + parts[-1].num_rows])
    local = [rows[i:j] - part.offset for part, i, j in zip(parts, bounds[:-1], bounds[1:], strict=True)]
    return [digest_of(mine.astype(np.uint32).tobytes().hex()) for mine in local]


def join(
    runner: Runner, name: str, stage: str, pairs: Sequence[tuple[Block, Block]], rule: JoinRule
) -> tuple[EdgeFile, ...]:
    """The edges of every pair of blocks: row `a` of the left block and `b` of the right."""
    config = {
        "phash_radius": rule.phash_radius,
        "cosine_from": rule.cosine_from,
        "pca_radius": rule.pca_radius,
        "pixels": rule.pixels,
        "max_edges_per_row": rule.max_edges_per_row,
        "every_left": rule.every_left,
    }
    num_gpus = int(rule.backend == "cuda" and rule.cosine_from is not None)
    step = Step(name, 4, config, partial(_load, rule), "task", stage, rule.threads, num_gpus=num_gpus)
    items = [
        Item((left.digest, right.digest, f"same: {left is right}"), {"left": left, "right": right})
        for left, right in pairs
    ]
    files = [receipt.file(runner.run_dir, "edges.parquet") for receipt in runner.run(step, items)]
    return tuple(
        EdgeFile(file, left.first_row, right.first_row)
        for file, (left, right) in zip(files, pairs, strict=True)
    )


def _load(rule: JoinRule) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        left, right = attempt.payload["left"], attempt.payload["right"]
        tables, hubs, dropped, largest = [], 0, 0, 0
        for kind, found in _search(left, right, rule=rule):
            order = np.lexsort((found.b, found.a))
            a, b = found.a[order] - left.first_row, found.b[order] - right.first_row
            tables.append(edge_table(a, b, found.score[order], kind=kind))
            hubs, dropped = hubs + found.num_hub_rows, dropped + found.num_dropped
            largest = max(largest, found.largest_group)
        storage.write_table(attempt.out / "edges.parquet", pa.concat_tables([EDGES.empty_table(), *tables]))
        return {
            "num_edges": sum(map(len, tables)),
            "num_hub_rows": hubs,
            "num_dropped": dropped,
            "largest_group": largest,
        }

    return work


def _search(left: Block, right: Block, *, rule: JoinRule) -> Iterator[tuple[str, Pairs]]:
    """Pairs of every kind by global rows."""
    rows_a = joined_rows(left)
    rows_b = rows_a if left == right else joined_rows(right)
    if rule.every_left:
        rows_b = rows_b[_by_id(right, rows_b)]
    for kind, file, radius in (
        ("phash", "described", rule.phash_radius),
        ("pca_hash", "pca_hashes", rule.pca_radius),
    ):
        if radius is not None:
            a, hashes_a = _hashes(left, rows_a, file=file, name=kind)
            b, hashes_b = (a, hashes_a) if left == right else _hashes(right, rows_b, file=file, name=kind)
            pairs = hamming_pairs(
                hashes_a,
                hashes_b,
                radius=radius,
                same=left == right,
                every_a=rule.every_left,
                max_edges_per_row=rule.max_edges_per_row,
            )
            yield kind, replace(pairs, a=a[pairs.a], b=b[pairs.b])
    if rule.pixels:
        yield "pixels", _pixel_pairs(left, right, rows_a, rows_b, rule=rule)
    if rule.cosine_from is not None:
        v = _vectors(left, rows_a)
        w = v if left == right else _vectors(right, rows_b)
        search = partial(
            cosine_pairs,
            threshold=rule.cosine_from,
            same=left == right,
            backend=rule.backend,
            max_edges_per_row=rule.max_edges_per_row,
        )
        pairs = collapsed_pairs(v, w, same=left == right, every_a=rule.every_left, search=search)
        yield "cosine", replace(pairs, a=rows_a[pairs.a], b=rows_b[pairs.b])


def _pixel_pairs(
    left: Block, right: Block, rows_a: np.ndarray, rows_b: np.ndarray, *, rule: JoinRule
) -> Pairs:
    """Pairs of pictures with equal pixels, to within what re-encoding changes."""
    small_a = gather_miniatures(left.parts, rows_a)
    pairs = miniature_pairs(
        small_a,
        small_a if left == right else gather_miniatures(right.parts, rows_b),
        same=left == right,
        every_a=rule.every_left,
        max_edges_per_row=rule.max_edges_per_row,
    )
    return replace(pairs, a=rows_a[pairs.a], b=rows_b[pairs.b])


def joined_rows(block: Block) -> Int64[np.ndarray, " m"]:
    """The block's rows that take part, ascending."""
    rows = read_array(block.rows)
    last = block.parts[-1]
    start, stop = np.searchsorted(rows, [block.first_row, last.offset + last.num_rows])
    return np.asarray(rows[start:stop])


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
    return rows[has], as_numpy(hashes, null=0)[rows[has] - block.first_row]


def _vectors(block: Block, rows: Int64[np.ndarray, " m"]) -> np.ndarray:
    """The copy descriptors of rows in any order; zeros for pictures of poor hash."""
    ascending = np.argsort(rows)
    vectors = gather_vectors(block.parts, copy_file(block.parts[0]), rows[ascending])
    vectors[is_poor(block.parts)[rows[ascending] - block.first_row]] = 0
    if (ascending[1:] > ascending[:-1]).all():
        return vectors
    place = np.empty(len(rows), np.int64)
    place[ascending] = np.arange(len(rows))
    return vectors[place]


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
