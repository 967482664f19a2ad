"""Joins blocks of rows into edges: each pair of blocks is a unit of work and of resume of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from curation import storage
from curation.schema import EDGE_KINDS, EDGES
from curation.search.binary import hamming_pairs
from curation.search.edges import Pairs
from curation.search.exact import cosine_pairs
from pipelines.parts import Part, as_numpy, column, gather_vectors, read, read_array
from pipelines.runner import Runner
from pipelines.step import Attempt, FileRef, Item, Step, Work, digest_of


@dataclass(frozen=True)
class Block:
    """An append-only run of parts, and which of their rows take part in the join."""

    parts: tuple[Part, ...]
    rows: FileRef  # ascending global rows, of this block and others
    digest: str


@dataclass(frozen=True)
class JoinRule:
    """What makes an edge; None switches a kind off."""

    phash_radius: int | None
    cosine_from: float | None
    max_edges_per_row: int | None = None
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
    for part, digest in zip(parts, digests, strict=True):
        run.append((part, digest))
        if sum(p.num_rows for p, _ in run) >= block_rows:
            blocks.append(_block(run, rows))
            run = []
    return [*blocks, _block(run, rows)] if run else blocks


def _block(run: list[tuple[Part, str]], rows: FileRef) -> Block:
    identity = digest_of([(part.digest("described", copy_file(part)), digest) for part, digest in run])
    return Block(tuple(part for part, _ in run), rows, identity)


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
) -> list[FileRef]:
    """The edges of every pair of blocks: `schema.EDGES`, row `a` of the left block and `b` of the right."""
    config = {
        "phash_radius": rule.phash_radius,
        "cosine_from": rule.cosine_from,
        "max_edges_per_row": rule.max_edges_per_row,
    }
    step = Step(name, 1, config, partial(_load, rule), "task", stage, rule.threads)
    items = [Item((left.digest, right.digest), {"left": left, "right": right}) for left, right in pairs]
    return [receipt.file(runner.run_dir, "edges.parquet") for receipt in runner.run(step, items)]


def _load(rule: JoinRule) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        left, right = attempt.payload["left"], attempt.payload["right"]
        rows_a = _rows(left)
        rows_b = rows_a if left is right or left == right else _rows(right)
        tables, hubs, dropped = [], 0, 0
        for kind, found in _search(left, right, rows_a, rows_b, rule=rule):
            tables.append(edge_table(rows_a[found.a], rows_b[found.b], found.score, kind=kind))
            hubs, dropped = hubs + found.num_hub_rows, dropped + found.num_dropped
        storage.write_table(attempt.out / "edges.parquet", pa.concat_tables([EDGES.empty_table(), *tables]))
        return {"num_edges": sum(map(len, tables)), "num_hub_rows": hubs, "num_dropped": dropped}

    return work


def _rows(block: Block) -> Int64[np.ndarray, " m"]:
    rows = read_array(block.rows)
    last = block.parts[-1]
    start, stop = np.searchsorted(rows, [block.parts[0].offset, last.offset + last.num_rows])
    return np.asarray(rows[start:stop])


def _search(
    left: Block, right: Block, rows_a: np.ndarray, rows_b: np.ndarray, *, rule: JoinRule
) -> list[tuple[str, Pairs]]:
    same = left == right
    across = left.parts[0].role != "holdout" and right.parts[0].role == "holdout"
    found = []
    if rule.phash_radius is not None:
        a, b = _hashes(left, rows_a), _hashes(right, rows_b)
        # Across a holdout's border every image needs a verdict of its own, not one for its group of equals.
        pairs = hamming_pairs(
            a,
            b,
            radius=rule.phash_radius,
            same=same,
            every_a=across,
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
    return phash[rows - block.parts[0].offset]


def edge_table(a: np.ndarray, b: np.ndarray, score: np.ndarray, *, kind: str) -> pa.Table:
    """Edges of one kind as `schema.EDGES`."""
    kinds = np.full(len(a), EDGE_KINDS.index(kind), np.int8)
    codes = pa.DictionaryArray.from_arrays(pa.array(kinds), pa.array(EDGE_KINDS))
    return pa.Table.from_arrays([pa.array(a), pa.array(b), pa.array(score), codes], schema=EDGES)


def read_edges(files: Sequence[FileRef], *, phash_radius: int | None, cosine_from: float | None) -> pa.Table:
    """The saved edges at or above thresholds of the moment."""
    kept = []
    for file in files:
        edges = read(file)
        kind = edges["kind"].combine_chunks()
        names = (
            np.array(kind.dictionary.to_pylist(), object)[kind.indices.to_numpy()]
            if len(edges)
            else np.array([])
        )
        score = edges["score"].to_numpy()
        keep = np.zeros(len(edges), bool)
        if phash_radius is not None:
            keep |= (names == "phash") & (score >= 1 - phash_radius / 64)
        if cosine_from is not None:
            keep |= (names == "cosine") & (score >= cosine_from)
        kept.append(edges.filter(pa.array(keep)))
    return pa.concat_tables([EDGES.empty_table(), *kept]).unify_dictionaries()
