"""Joins rows into edges cell by cell: an approximate join that says how much it finds before it starts.

Cells are trained on sampled rows; other sampled rows are compared with the whole pool exactly, which tells
how many cells a row must visit, and what share of the pairs is found then. Every block of rows is assigned to
its cells, and each group of cells is a unit of work and of resume of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float16, Int64

from curation import storage
from curation.schema import EDGES
from curation.search.cell_join import Members, join_cells
from curation.search.cells import CellsConfig, default_num_cells, group_cells, nearest_cells, train_cells
from curation.search.collapse import equal_vectors
from curation.search.product import nonzero_rows
from curation.search.recall import (
    MAX_PROBES,
    Truth,
    choose_probes,
    exact_truth,
    measured_recall,
    require_recall,
)
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, Item, Receipt, Step, Work, digest_of
from pipelines.rows.parts import gather_vectors, read_array
from pipelines.stages.copies.join import Block, EdgeFile, JoinRule, copy_file, edge_table, joined_rows
from pipelines.stages.copies.poor_pictures import is_poor

# Visitors of a group are joined in chunks of so many rows: with few a cell, its product is all overhead.
CHUNK_ROWS = 131_072
RECALL_SUFFIX = "_recall"  # of the name of the step that measures it


def cell_join(
    runner: Runner,
    name: str,
    stage: str,
    blocks: Sequence[Block],
    rule: JoinRule,
    *,
    search: CellsConfig,
    seed: int,
) -> tuple[EdgeFile, ...]:
    """The cosine edges among the rows of all blocks, by global rows.

    Args:
        runner: of the run.
        name: of the steps: `NAME_cells`, `NAME_truth`, `NAME_recall`, `NAME_assign`, and NAME for the join.
        stage: of the flow.
        blocks: in order; which rows take part.
        rule: `cosine_from`, `max_edges_per_row` and `threads` count.
        search: the cells, and the recall asked for.
        seed: of every sample.

    Raises:
        ConfigError: the measured recall is under the one that `search` asks for.
    """
    if not blocks:
        return ()
    steps = _Steps(name, stage, rule, search, seed)
    places = tuple((block.digest, f"first row {block.first_row}") for block in blocks)
    everything = {"blocks": tuple(blocks)}
    cells = runner.run_one(steps.train(), Item((digest_of(places),), everything))
    files = {key: cells.file(runner.run_dir, f"{key}.npy") for key in ("centroids", "sample_rows", "sample")}

    def items(*inputs: str) -> list[Item]:
        return [
            Item((*place, *inputs), {"block": block, **files})
            for place, block in zip(places, blocks, strict=True)
        ]

    truths = runner.run(steps.truth(), items(cells.digest))
    payload = {
        "truths": tuple(receipt.file(runner.run_dir, "truth.npy") for receipt in truths),
        "num_sampled": cells.facts["num_sampled"],
        "num_cells": cells.facts["num_cells"],
    }
    recall = runner.run_one(steps.recall(), Item((cells.digest, *(t.digest for t in truths)), payload))
    assign = steps.assign(num_probes=recall.facts["num_probes"], groups=cells.facts["groups"])
    assigned = runner.run(assign, items(cells.digest))
    stars = tuple(EdgeFile(receipt.file(runner.run_dir, "stars.parquet"), 0, 0) for receipt in assigned)
    return stars + _join_groups(runner, steps.join(), blocks, assigned, groups=cells.facts["groups"])


def _join_groups(
    runner: Runner, step: Step, blocks: Sequence[Block], assigned: Sequence[Receipt], *, groups: list[int]
) -> tuple[EdgeFile, ...]:
    who = tuple(
        (
            block,
            *(receipt.file(runner.run_dir, f"{key}.npy") for key in ("rows", "cells", "visits", "starts")),
        )
        for block, receipt in zip(blocks, assigned, strict=True)
    )
    inputs = digest_of([receipt.digest for receipt in assigned])
    items = [
        Item((inputs, f"cells {first} to {last}"), {"who": who, "group": group, "cells": (first, last)})
        for group, (first, last) in enumerate(pairwise(groups))
    ]
    files = [receipt.file(runner.run_dir, "edges.parquet") for receipt in runner.run(step, items)]
    return tuple(EdgeFile(file, 0, 0) for file in files)


class _Steps:
    """The steps of one join: what each one's output depends on."""

    def __init__(self, name: str, stage: str, rule: JoinRule, search: CellsConfig, seed: int) -> None:
        self._name, self._stage, self._rule, self._search, self._seed = name, stage, rule, search, seed

    def _step(self, suffix: str, config: dict[str, Any], load: Any) -> Step:
        return Step(f"{self._name}{suffix}", 3, config, load, "task", self._stage, self._rule.threads)

    def train(self) -> Step:
        fields = {"num_cells", "sample_rows_per_cell", "recall_rows", "group_rows"}
        settings = {**self._search.model_dump(mode="json", include=fields), "seed": self._seed}
        return self._step("_cells", settings, partial(_load_train, self._search, self._seed))

    def truth(self) -> Step:
        settings = {"cosine_from": self._rule.cosine_from, "max_probes": self._max_probes}
        return self._step("_truth", settings, partial(_load_truth, self._rule, self._max_probes))

    def recall(self) -> Step:
        settings = self._search.model_dump(mode="json", include={"num_probes", "min_recall"})
        return self._step(RECALL_SUFFIX, settings, partial(_load_recall, self._search, self._max_probes))

    def assign(self, *, num_probes: int, groups: list[int]) -> Step:
        settings = {"num_probes": num_probes, "groups": groups}
        return self._step("_assign", settings, partial(_load_assign, num_probes, groups))

    def join(self) -> Step:
        rule = self._rule
        settings = {"cosine_from": rule.cosine_from, "max_edges_per_row": rule.max_edges_per_row}
        return self._step("", settings, partial(_load_join, rule))

    @property
    def _max_probes(self) -> int:
        return max(MAX_PROBES, self._search.num_probes or 0)


def _load_train(search: CellsConfig, seed: int) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        blocks: tuple[Block, ...] = attempt.payload["blocks"]
        ends = np.cumsum([len(joined_rows(block)) for block in blocks])
        num_rows = int(ends[-1]) if len(ends) else 0
        num_cells = search.num_cells or default_num_cells(num_rows)
        rng = np.random.default_rng(seed)
        _, vectors = _sample(blocks, ends, search.sample_rows_per_cell * num_cells, rng=rng)
        sample_rows, sample = _sample(blocks, ends, search.recall_rows, rng=rng)
        if not len(vectors):  # no row has a vector, so any cell will do
            vectors = np.eye(1, max(vectors.shape[1], 1), dtype=np.float16)
        num_cells = min(num_cells, len(vectors))
        centroids = train_cells(vectors, num_cells, seed=seed)
        sizes = np.bincount(nearest_cells(vectors, centroids, num_probes=1)[:, 0], minlength=num_cells)
        groups = group_cells(sizes, num_groups=-(-num_rows // search.group_rows) or 1)
        storage.write_vectors(attempt.out / "centroids.npy", centroids)
        storage.write_vectors(attempt.out / "sample_rows.npy", sample_rows)
        storage.write_vectors(attempt.out / "sample.npy", sample)
        return {
            "num_rows": num_rows,
            "num_cells": num_cells,
            "num_sampled": len(sample),
            "groups": groups.tolist(),
        }

    return work


def _sample(
    blocks: Sequence[Block], ends: Int64[np.ndarray, " b"], num_rows: int, *, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, " s"], Float16[np.ndarray, "s d"]]:
    """Some of all rows, ascending, and their vectors; those without one, or of poor hash, fall away.

    Every draw takes one row of each of equal runs of rows, so that no list of all rows is held.
    """
    total = int(ends[-1]) if len(ends) else 0
    starts = np.arange(min(num_rows, total) + 1) * total // max(min(num_rows, total), 1)
    places = starts[:-1] + (rng.random(len(starts) - 1) * np.diff(starts)).astype(np.int64)
    rows: list[np.ndarray] = [np.zeros(0, np.int64)]
    vectors: list[np.ndarray] = []
    for block, own in zip(blocks, np.split(places, np.searchsorted(places, ends[:-1])), strict=True):
        joined = joined_rows(block)
        mine = joined[own - (ends[len(vectors)] - len(joined))]
        found = gather_vectors(block.parts, copy_file(block.parts[0]), mine)
        has = nonzero_rows(found) & ~is_poor(block.parts)[mine - block.first_row]
        rows.append(mine[has])
        vectors.append(found[has])
    return np.concatenate(rows), np.concatenate(vectors)


def _with_vectors(block: Block) -> tuple[Int64[np.ndarray, " m"], Float16[np.ndarray, "m d"]]:
    rows = joined_rows(block)
    vectors = gather_vectors(block.parts, copy_file(block.parts[0]), rows)
    has = nonzero_rows(vectors) & ~is_poor(block.parts)[rows - block.first_row]
    return (rows, vectors) if has.all() else (rows[has], vectors[has])


def _load_truth(rule: JoinRule, max_probes: int) -> Work:
    assert rule.cosine_from is not None, "a join by cells is a join by cosine"
    threshold = rule.cosine_from

    def work(attempt: Attempt) -> dict[str, Any]:
        _, vectors = _with_vectors(attempt.payload["block"])
        sample = np.asarray(read_array(attempt.payload["sample"]))
        centroids = np.asarray(read_array(attempt.payload["centroids"]))
        truth = exact_truth(sample, vectors, centroids, threshold=threshold, max_probes=max_probes)
        table = np.stack([truth.row, truth.probes.astype(np.int64), truth.count], axis=1)
        storage.write_vectors(attempt.out / "truth.npy", table)
        return {"num_pairs": int(truth.count.sum())}

    return work


def _load_recall(search: CellsConfig, max_probes: int) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        table = np.concatenate([np.asarray(read_array(file)) for file in attempt.payload["truths"]])
        truth = Truth(table[:, 0], table[:, 1].astype(np.int32), table[:, 2])
        num_cells = attempt.payload["num_cells"]
        judged = np.ones(attempt.payload["num_sampled"], bool)
        num_probes = min(search.num_probes or 0, num_cells)
        if not num_probes:
            judged = np.arange(len(judged)) % 2 == 1  # the others choose
            num_probes = choose_probes(
                truth, rows=~judged, min_recall=search.min_recall, most=min(num_cells, max_probes)
            )
        recall = measured_recall(truth, rows=judged, num_probes=num_probes)
        require_recall(recall, min_recall=search.min_recall, num_probes=num_probes, num_cells=num_cells)
        return {"num_cells": num_cells, "num_probes": num_probes, "recall": asdict(recall)}

    return work


def _load_assign(num_probes: int, groups: list[int]) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        rows, vectors = _with_vectors(attempt.payload["block"])
        centroids = np.asarray(read_array(attempt.payload["centroids"]))
        equal = equal_vectors(vectors)
        firsts = equal.first
        first, copies = equal.stars
        stars = edge_table(rows[first], rows[copies], np.ones(len(copies)), kind="cosine")
        storage.write_table(attempt.out / "stars.parquet", stars.cast(EDGES))
        rows, vectors = rows[firsts], vectors[firsts]  # its other rows are never looked at again
        cells = nearest_cells(vectors, centroids, num_probes=num_probes)
        group = np.searchsorted(groups, cells, side="right") - 1
        # A row is listed once in each group that it visits.
        is_new = np.ones(group.shape, bool)
        group.sort(axis=1)
        is_new[:, 1:] = group[:, 1:] != group[:, :-1]
        row, place = np.nonzero(is_new)
        order = np.argsort(group[row, place], kind="stable")
        starts = np.searchsorted(group[row, place][order], np.arange(len(groups)))
        storage.write_vectors(attempt.out / "rows.npy", rows)
        storage.write_vectors(attempt.out / "cells.npy", cells)
        storage.write_vectors(attempt.out / "visits.npy", row[order].astype(np.int32))
        storage.write_vectors(attempt.out / "starts.npy", starts)
        return {"num_rows": len(rows), "num_visits": len(order), "largest_group": equal.largest}

    return work


def _load_join(rule: JoinRule) -> Work:
    assert rule.cosine_from is not None, "a join by cells is a join by cosine"
    threshold = rule.cosine_from

    def work(attempt: Attempt) -> dict[str, Any]:
        who, cells = attempt.payload["who"], range(*attempt.payload["cells"])
        visits = [_visits(entry, attempt.payload["group"]) for entry in who]
        at_home = [_is_home(entry, places, cells) for entry, places in zip(who, visits, strict=True)]
        everyone = list(zip(who, visits, strict=True))
        residents = [(entry, p[home]) for (entry, p), home in zip(everyone, at_home, strict=True)]
        found = join_cells(
            _members(residents),
            _chunks(everyone),
            cells=cells,
            rows=np.concatenate([read_array(entry[1])[places] for entry, places in everyone]),
            threshold=threshold,
            max_edges_per_row=rule.max_edges_per_row,
        )
        table = edge_table(found.a, found.b, found.score, kind="cosine").cast(EDGES)
        storage.write_table(attempt.out / "edges.parquet", table)
        return {
            "num_edges": len(found.a),
            "num_hub_rows": found.num_hub_rows,
            "num_dropped": found.num_dropped,
            "largest_group": found.largest_group,
        }

    return work


def _visits(entry: tuple[Any, ...], group: int) -> Int64[np.ndarray, " v"]:
    """Places among the block's assigned rows of those that visit the group."""
    _, _, _, visits, starts = entry
    first, last = read_array(starts)[group : group + 2]
    return np.asarray(read_array(visits)[first:last]).astype(np.int64)


def _is_home(entry: tuple[Any, ...], places: np.ndarray, cells: range) -> Bool[np.ndarray, " v"]:
    home = read_array(entry[2])[places, 0]
    return (home >= cells.start) & (home < cells.stop)


def _chunks(everyone: list[tuple[tuple[Any, ...], np.ndarray]]) -> Iterator[Members]:
    """Runs of blocks with enough visitors."""
    run, num_rows = [], 0
    for entry, places in everyone:
        run.append((entry, places))
        num_rows += len(places)
        if num_rows >= CHUNK_ROWS:
            yield _members(run)
            run, num_rows = [], 0
    if run:
        yield _members(run)


def _members(chosen: list[tuple[tuple[Any, ...], np.ndarray]]) -> Members:
    rows, vectors, cells = [], [], []
    for (block, of_block, cells_of_block, _, _), places in chosen:
        mine = np.asarray(read_array(of_block)[places])
        rows.append(mine)
        vectors.append(gather_vectors(block.parts, copy_file(block.parts[0]), mine))
        cells.append(np.asarray(read_array(cells_of_block)[places]))
    return Members(np.concatenate(rows), np.concatenate(vectors), np.concatenate(cells))
