"""dedup: exact copies are collapsed, what is left is joined into edges, and components keep one row each."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64

from curation import storage
from curation.dedup.components import (
    choose_representatives,
    component_health,
    components,
    copies_table,
    direct_scores,
)
from curation.dedup.pairs import DedupConfig, collapse_equal, survivor_order
from pipelines.config import RunConfig
from pipelines.parts import (
    Part,
    as_numpy,
    column,
    gather_vectors,
    is_null,
    read,
    read_array,
    roles,
    sha256_words,
)
from pipelines.runner import Runner
from pipelines.stages.join import EdgeFile, JoinRule, copy_file, join, make_blocks, read_edges, row_digests
from pipelines.step import Attempt, FileRef, Item, Step, Work

# A component's rows are compared with their representative in runs of so many, to bound the vectors held.
SCORE_ROWS = 1 << 16


@dataclass(frozen=True)
class Copies:
    """What dedup found: `copies` (schema.COPIES), the health of components, and the saved edges."""

    copies: FileRef
    health: FileRef
    edges: tuple[EdgeFile, ...]


def dedup(runner: Runner, config: RunConfig, parts: Sequence[Part]) -> Copies:
    """Find the copies among the usable images of all curated and uncurated pools."""
    rule = config.dedup
    inputs = tuple(part.digest("described", "verdicts") for part in parts)
    rows_step = Step("dedup_rows", 1, {}, _load_rows, "task", "dedup")
    rows = runner.run_one(rows_step, Item(inputs, {"parts": tuple(parts)}))
    joined = rows.file(runner.run_dir, "joined.npy")
    searched = [
        (part, d) for part, d in zip(parts, rows.facts["digests"], strict=True) if part.role != "holdout"
    ]
    blocks = make_blocks(
        [part for part, _ in searched], joined, [d for _, d in searched], block_rows=rule.block_rows
    )
    join_rule = JoinRule(
        rule.phash_radius,
        rule.saved_from,
        max_edges_per_row=rule.max_edges_per_row,
        backend=rule.backend,
        threads=config.describe.embed.threads,
    )
    edges = join(runner, "dedup_edges", "dedup", list(combinations_with_replacement(blocks, 2)), join_rule)

    settings = rule.model_dump(mode="json", include={"phash_radius", "cosine_threshold", "max_edges_per_row"})
    step = Step("dedup_components", 1, settings, partial(_load_components, rule), "task", "dedup")
    payload = {
        "parts": tuple(parts),
        "edges": edges,
        "firsts": rows.file(runner.run_dir, "firsts.npy"),
    }
    copies = runner.run_one(step, Item((*inputs, rows.digest, *(e.file.sha256 for e in edges)), payload))
    return Copies(
        copies.file(runner.run_dir, "copies.parquet"),
        copies.file(runner.run_dir, "health.parquet"),
        edges,
    )


def usable(parts: Sequence[Part]) -> Bool[np.ndarray, " n"]:
    """Rows that were decoded and judged good."""
    return is_null(parts, "described", "reason") & is_null(parts, "verdicts", "reason")


def id_words(parts: Sequence[Part]) -> np.ndarray:
    """Image ids as two big-endian words."""
    return sha256_words(parts)[:, :2]


def survivor_rank(parts: Sequence[Part]) -> Int64[np.ndarray, " n"]:
    """Every row's claim to survive among its copies."""
    width = as_numpy(column(parts, "described", "width"), null=0).astype(np.int64)
    height = as_numpy(column(parts, "described", "height"), null=0)
    return survivor_order(
        is_curated=roles(parts, "curated"),
        area_px=width * height,
        num_bytes=as_numpy(column(parts, "described", "num_bytes"), null=0),
        image_id=id_words(parts),
    )


def _load_rows() -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        parts: tuple[Part, ...] = attempt.payload["parts"]
        candidates = np.flatnonzero(usable(parts) & ~roles(parts, "holdout"))
        rank = survivor_rank(parts)[candidates]
        first = candidates[collapse_equal(sha256_words(parts)[candidates], rank)]
        joined = candidates[first == candidates]
        storage.write_vectors(attempt.out / "joined.npy", joined)
        storage.write_vectors(attempt.out / "firsts.npy", np.stack([candidates, first], axis=1))
        return {"digests": row_digests(parts, joined), "num_rows": len(candidates), "num_joined": len(joined)}

    return work


def _load_components(rule: DedupConfig) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        parts: tuple[Part, ...] = attempt.payload["parts"]
        num_rows = parts[-1].offset + parts[-1].num_rows
        firsts = np.asarray(read_array(attempt.payload["firsts"]))
        copied = firsts[firsts[:, 0] != firsts[:, 1]]
        edges = read_edges(
            attempt.payload["edges"],
            phash_radius=rule.phash_radius,
            cosine_from=rule.cosine_threshold,
            max_edges_per_row=rule.max_edges_per_row,
        )
        a = np.concatenate([copied[:, 1], edges["a"].to_numpy()])
        b = np.concatenate([copied[:, 0], edges["b"].to_numpy()])
        score = np.concatenate([np.ones(len(copied)), edges["score"].to_numpy()])
        found = choose_representatives(components(num_rows, a, b), survivor_rank(parts))
        words = sha256_words(parts)
        is_exact = (words[found.row] == words[found.representative]).all(axis=1)
        scores = _scores(parts, found.row, found.representative, is_exact=is_exact, rule=rule)
        table = copies_table(found, is_exact=is_exact, scores=scores)
        health = component_health(found, a=np.minimum(a, b), b=np.maximum(a, b), score=score)
        storage.write_table(attempt.out / "copies.parquet", table)
        storage.write_table(
            attempt.out / "health.parquet", pa.table({"size": health.size, "weakest": health.weakest})
        )
        return {"num_components": len(health.size), "num_rows": num_rows}

    return work


def _scores(
    parts: Sequence[Part], rows: np.ndarray, others: np.ndarray, *, is_exact: np.ndarray, rule: DedupConfig
) -> np.ndarray:
    phash = as_numpy(column(parts, "described", "phash"), null=0)
    scores = np.zeros(len(rows))
    for start in range(0, len(rows), SCORE_ROWS):
        cut = slice(start, start + SCORE_ROWS)
        vectors = None
        if rule.cosine_threshold is not None:
            vectors = (_vectors(parts, rows[cut]), _vectors(parts, others[cut]))
        hashes = (phash[rows[cut]], phash[others[cut]]) if rule.phash_radius is not None else None
        scores[cut] = direct_scores(is_exact=is_exact[cut], phash=hashes, vectors=vectors)
    return scores


def _vectors(parts: Sequence[Part], rows: np.ndarray) -> np.ndarray:
    ascending, place = np.unique(rows, return_inverse=True)
    return gather_vectors(parts, copy_file(parts[0]), ascending)[place]


def read_copies(copies: Copies) -> pa.Table:
    """Every row of a component of two or more: `schema.COPIES`."""
    return read(copies.copies)
