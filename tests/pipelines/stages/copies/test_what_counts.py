"""What the identities of joins and decisions hang on: what is read, and not where it stands."""

from dataclasses import replace
from typing import Any

import pytest

from curation.dedup.config import DedupConfig
from curation.dedup.decontaminate import DecontaminateConfig
from pipelines.engine.digest import digest_of, narrowed
from pipelines.engine.step import FileRef, Item, Step
from pipelines.rows.parts import Part
from pipelines.stages.copies.blocks import HASHES_AND_VECTORS, Block, JoinedPart, make_blocks
from pipelines.stages.copies.cell_groups import AssignedBlock, AssignTask, GroupTask
from pipelines.stages.copies.components import files_compared
from pipelines.stages.copies.decontaminate import LeaksSettings
from pipelines.stages.copies.dedup import ComponentsSettings
from pipelines.stages.copies.join import JoinRule, JoinTask
from pipelines.stages.copies.join import _load as load_join
from pipelines.stages.copies.saved_edges import EdgeFile


def file(name: str) -> FileRef:
    return FileRef(f"/run/{name}", 1, name)


ROWS = file("rows")


def part(number: int, pool: str, offset: int, **files: FileRef) -> Part:
    made = {"described": file(f"described {pool} {number}"), "embeddings": file(f"vectors {pool} {number}")}
    return Part(number, pool, "uncurated", offset, 10, file("images"), **{**made, **files})  # type: ignore[arg-type]


def block(one: Part, rows: str = "all") -> Block:
    joined = [JoinedPart(one, rows, one.num_rows)]
    [made] = make_blocks(joined, ROWS, block_rows=10, files=HASHES_AND_VECTORS)
    return made


def test_a_block_is_the_same_wherever_it_stands() -> None:
    one = part(1, "web", 10)
    moved = replace(one, number=7, offset=70, pool="other", role="curated", images=file("others"))
    here, there = block(one), block(moved)
    assert here.digest == there.digest
    assert (here.first_row, there.first_row) == (10, 70)
    assert digest_of(JoinTask(here, there, False)) == digest_of(JoinTask(there, here, False))
    assert digest_of(JoinTask(here, here, True)) != digest_of(JoinTask(here, there, False))
    assert digest_of(AssignTask(here, ROWS)) != digest_of(AssignTask(there, ROWS))  # by global rows


def test_a_block_is_another_with_other_files_or_rows() -> None:
    one = part(1, "web", 10)
    others = [
        block(replace(one, described=file("new"))),
        block(replace(one, embeddings=file("new"))),
        block(replace(one, descriptors=file("newer"))),
        block(one, rows="some"),
    ]
    assert len({block(one).digest, *(other.digest for other in others)}) == 5


def test_a_block_holds_what_its_digest_is_about_alone() -> None:
    one = part(1, "web", 10, descriptors=file("descriptors"), verdicts=file("verdicts"))
    [held] = block(one).parts
    assert (held.described, held.copy_vectors) == (one.described, one.descriptors)
    assert (held.images, held.embeddings, held.verdicts) == (None, None, None)
    assert (held.number, held.pool, held.role, held.offset) == (0, "", "uncurated", 10)


def test_parts_are_cut_into_blocks_of_one_pool() -> None:
    pools, counts = ("web", "web", "web", "books", "books"), (1, 9, 5, 2, 1)
    counted = [
        JoinedPart(part(i, pool, 10 * i), rows, num)
        for i, (pool, rows, num) in enumerate(zip(pools, "abcdf", counts, strict=True))
    ]
    blocks = make_blocks(counted, ROWS, block_rows=10, files=HASHES_AND_VECTORS)
    assert [one.digests for one in blocks] == [("a", "b"), ("c",), ("d", "f")]
    assert [one.first_row for one in blocks] == [0, 20, 30]
    assert make_blocks([], ROWS, block_rows=10, files=HASHES_AND_VECTORS) == []


def test_what_a_join_runs_on_is_no_part_of_its_identity() -> None:
    item = Item(JoinTask(block(part(1, "web", 10)), block(part(2, "web", 20)), False))

    def identity(**changed: Any) -> str:
        rule = replace(JoinRule(phash_radius=6, cosine_threshold=0.9), **changed)
        return Step("join", 4, rule, load_join, "dedup").identity(item)

    assert identity() == identity(backend="cuda", threads=8)
    others = [{"phash_radius": 5}, {"cosine_threshold": 0.8}, {"pca_radius": 1}, {"pixels": True}]
    others += [{"max_edges_per_row": 3}, {"every_left": True}]
    assert len({identity(), *(identity(**other) for other in others)}) == 7


def test_a_group_of_cells_hangs_on_the_vectors_that_it_compares() -> None:
    """Of few images all fall into one cell, whatever their vectors are."""

    def group(one: Part, number: int = 0) -> GroupTask:
        files = [file(name) for name in ("rows", "cells", "visits", "starts")]
        return GroupTask((AssignedBlock(block(one), *files),), number, range(number, number + 1))

    one = part(1, "web", 10)
    assert digest_of(group(one)) == digest_of(group(one))
    others = [group(one, 1), group(replace(one, embeddings=file("new"))), group(replace(one, offset=20))]
    assert len({digest_of(other) for other in (group(one), *others)}) == 4


def test_components_hang_on_what_the_kinds_in_use_compare() -> None:
    assert files_compared(()) == ("described",)
    assert files_compared(DedupConfig(cosine_threshold=0.9).thresholds) == HASHES_AND_VECTORS
    assert files_compared(DedupConfig(pca_radius=3).thresholds) == ("described", "pca_hashes")


def test_what_the_saved_edges_hold_is_no_part_of_a_decision() -> None:
    def decision(**changed: Any) -> str:
        return digest_of(ComponentsSettings(DedupConfig(cosine_threshold=0.9, **changed)))

    assert decision() == decision(edge_floor=0.5, backend="cuda", block_rows=5, pca_sample_rows=100)
    others = [{"phash_radius": 5}, {"alarm_below": None}, {"cut_chains": True}, {"max_edges_per_row": 9}]
    assert len({decision(), *(decision(**other) for other in others)}) == 5


@pytest.mark.parametrize("is_held", [True, False])
def test_leaks_hang_on_what_makes_components(is_held: bool) -> None:
    def leaks(**changed: Any) -> str:
        rule = DedupConfig(cosine_threshold=0.9, **changed) if is_held else None
        return digest_of(LeaksSettings(DecontaminateConfig(), ("web",), rule))

    assert leaks() == leaks(alarm_below=0.5, block_rows=5, backend="cuda", search="cells")
    assert (leaks() != leaks(max_edges_per_row=9)) == is_held


def test_edges_are_told_apart_by_where_their_blocks_stand() -> None:
    """Equal files of edges, of blocks that were cut elsewhere, name other rows."""
    assert digest_of(EdgeFile(ROWS, 0, 0)) != digest_of(EdgeFile(ROWS, 0, 10))


def test_a_task_keeps_the_place_of_its_blocks() -> None:
    task = JoinTask(block(part(1, "web", 10)), block(part(2, "web", 20)), False)
    assert narrowed(task) == task
    assert narrowed(AssignTask(task.left, ROWS)).block == task.left
