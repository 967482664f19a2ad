"""Joins blocks of rows into edges: each pair of blocks is a unit of work and of resume of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from curation import storage
from curation.schema import EDGE_KINDS, EDGES
from curation.search.binary import hamming_pairs
from curation.search.edges import Pairs, limit_edges
from curation.search.exact import cosine_pairs
from pipelines.parts import Part, as_numpy, column, gather_vectors, read, read_array
from pipelines.runner import Runner
from pipelines.step import Attempt, FileRef, Item, Step, Work, digest_of


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
        every_left: whether each row of the left block wants edges of its own, not one row for its hash.
    """

    phash_radius: int | None
    cosine_from: float | None
    max_edges_per_row: int | None = None
    every_left: bool = False
    backend: Literal["torch", "faiss"] = "torch"
    threads: int = 1


def make_blocks(
    parts: Sequence[Part], rows: FileRef, digests: Sequence[str], *, block_rows: int
) -> list[Block]:
    """Cut parts into runs of about `block_rows` rows.

    Args:
        parts: in order.
        rows: the rows that take part.
        digests: for each part, the hash of which of its rows take part.
        block_rows: a run closes once it has so many.
    """
    blocks: list[Block] = []
    run: list[tuple[Part, str]] = []
    num_rows = 0
    for part, digest in zip(parts, digests, strict=True):
        if run and (num_rows >= block_rows or part.pool != run[-1][0].pool):
            blocks.append(_block(run, rows))
            run, num_rows = [], 0
        run.append((part, digest))
        num_rows += part.num_rows
    return [*blocks, _block(run, rows)] if run else blocks


def _block(run: list[tuple[Part, str]], rows: FileRef) -> Block:
    content = [(part.content("described", copy_file(part)), digest) for part, digest in run]
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
        "max_edges_per_row": rule.max_edges_per_row,
        "every_left": rule.every_left,
    }
    step = Step(name, 2, config, partial(_load, rule), "task", stage, rule.threads)
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
        rows_a = _rows(left)
        rows_b = rows_a if left == right else _rows(right)
        tables, hubs, dropped = [], 0, 0
        for kind, found in _search(left, right, rows_a, rows_b, rule=rule):
            a, b = rows_a[found.a] - left.first_row, rows_b[found.b] - right.first_row
            tables.append(edge_table(a, b, found.score, kind=kind))
            hubs, dropped = hubs + found.num_hub_rows, dropped + found.num_dropped
        storage.write_table(attempt.out / "edges.parquet", pa.concat_tables([EDGES.empty_table(), *tables]))
        return {"num_edges": sum(map(len, tables)), "num_hub_rows": hubs, "num_dropped": dropped}

    return work


def _rows(block: Block) -> Int64[np.ndarray, " m"]:
    rows = read_array(block.rows)
    last = block.parts[-1]
    start, stop = np.searchsorted(rows, [block.first_row, last.offset + last.num_rows])
    return np.asarray(rows[start:stop])


def _search(
    left: Block, right: Block, rows_a: np.ndarray, rows_b: np.ndarray, *, rule: JoinRule
) -> list[tuple[str, Pairs]]:
    same = left == right
    found = []
    if rule.phash_radius is not None:
        a, b = _hashes(left, rows_a), _hashes(right, rows_b)
        pairs = hamming_pairs(
            a,
            b,
            radius=rule.phash_radius,
            same=same,
            every_a=rule.every_left,
            max_edges_per_row=rule.max_edges_per_row,
        )
        found.append(("phash", pairs))
    if rule.cosine_from is not None:
        v = gather_vectors(left.parts, copy_file(left.parts[0]), rows_a)
        w = v if same else gather_vectors(right.parts, copy_file(right.parts[0]), rows_b)
        pairs = cosine_pairs(
            v,
            w,
            threshold=rule.cosine_from,
            same=same,
            backend=rule.backend,
            max_edges_per_row=rule.max_edges_per_row,
        )
        found.append(("cosine", pairs))
    return found


def _hashes(block: Block, rows: Int64[np.ndarray, " m"]) -> np.ndarray:
    phash = as_numpy(column(block.parts, "described", "phash"), null=0)
    return phash[rows - block.first_row]


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


def read_edges(
    files: Sequence[EdgeFile],
    *,
    phash_radius: int | None,
    cosine_from: float | None,
    max_edges_per_row: int | None = None,
) -> pa.Table:
    """The saved edges at or above thresholds of the moment, by global rows.

    Blocks limited their own edges alone; the limit is applied again to their union, which gives what it would
    have given on the whole (see `limit_edges`).
    """
    floors = {"phash": None if phash_radius is None else 1 - phash_radius / 64, "cosine": cosine_from}
    kept = [EDGES.empty_table()]
    for kind, floor in floors.items():
        if floor is None:
            continue
        edges = pa.concat_tables([EDGES.empty_table(), *(_of_kind(f, kind, floor) for f in files)])
        edges = edges.unify_dictionaries()
        if max_edges_per_row is not None and len(edges):
            a, b, score = (edges[name].to_numpy() for name in ("a", "b", "score"))
            edges = edges.filter(pa.array(limit_edges(a, b, score, max_edges_per_row=max_edges_per_row)))
        kept.append(edges)
    return pa.concat_tables(kept).unify_dictionaries()


def _of_kind(file: EdgeFile, kind: str, floor: float) -> pa.Table:
    edges = global_edges(file)
    of_kind = pc.equal(edges["kind"].cast(pa.string()), kind)
    return edges.filter(pc.and_(of_kind, pc.greater_equal(edges["score"], floor)))
