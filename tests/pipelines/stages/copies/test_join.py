"""Edges of pairs of blocks: those of all pairs of rows, wherever the blocks stand."""

from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest
from part_files import make_part, published, sha256_of, unit_rows

from curation.dedup.edges import Edges
from curation.schema import EDGE_KINDS
from pipelines.engine.digest import digest_of
from pipelines.engine.local import LocalExecutor
from pipelines.engine.progress import Progress
from pipelines.engine.runner import Runner
from pipelines.rows.parts import Part
from pipelines.stages.copies.blocks import Block, JoinedPart
from pipelines.stages.copies.join import JoinRule, join, join_by_kinds
from pipelines.stages.copies.saved_edges import EdgeFile, read_edges

NUM, SIZE = 60, 20
RADIUS, COSINE = 12, 0.85


@pytest.fixture
def hashes() -> np.ndarray:
    """Around three centres; some with few bits of another."""
    rng = np.random.default_rng(1)
    centres = rng.integers(2**64, size=3, dtype=np.uint64)[rng.integers(3, size=NUM)]
    for _ in range(8):
        centres ^= np.left_shift(np.uint64(1), rng.integers(64, size=NUM).astype(np.uint64))
    return centres


def parts_of(folder: Path, hashes: np.ndarray, *, shift: int = 0) -> list[Part]:
    vectors = unit_rows(2, NUM)
    bits = np.where(np.arange(NUM) % 9 == 4, 5, 64)  # every ninth is of poor hash
    cuts = [slice(start, start + SIZE) for start in range(0, NUM, SIZE)]
    return [
        make_part(
            folder, number, offset=cut.start + shift, vectors=vectors[cut],
            phash=hashes[cut].tolist(), certain_bits=bits[cut].tolist(),
        )
        for number, cut in enumerate(cuts)
    ]  # fmt: skip


def blocks_of(folder: Path, parts: list[Part], *, shift: int = 0) -> list[Block]:
    """All rows take part but the last of each."""
    rows = np.array([row + shift for row in range(NUM) if row % SIZE != SIZE - 1])
    file = published(folder / f"rows{shift}.npy", rows)
    mine = digest_of(list(range(SIZE - 1)))
    return [Block.of([JoinedPart(part, mine, SIZE)], file, ("described", "copy_vectors")) for part in parts]


def runner_of(folder: Path) -> Runner:
    return Runner(str(folder), LocalExecutor(), Progress(quiet=True))


def ends(files: tuple[EdgeFile, ...], kind: str) -> set[tuple[int, int]]:
    edges = Edges.joined([read_edges(file) for file in files])
    mine = edges.take(edges.kind == EDGE_KINDS.index(kind))
    pairs = list(zip(mine.a.tolist(), mine.b.tolist(), strict=True))
    assert len(pairs) == len(set(pairs))
    return set(pairs)


def by_brute_force(near: np.ndarray) -> set[tuple[int, int]]:
    takes_part = np.array([row % SIZE != SIZE - 1 and row % 9 != 4 for row in range(NUM)])
    a, b = np.nonzero(np.triu(near & takes_part[:, None] & takes_part, 1))
    return set(zip(a.tolist(), b.tolist(), strict=True))


def test_they_are_those_of_all_pairs(tmp_path: Path, hashes: np.ndarray) -> None:
    blocks = blocks_of(tmp_path, parts_of(tmp_path, hashes))
    pairs = list(combinations_with_replacement(blocks, 2))
    files = join(runner_of(tmp_path / "run"), "edges", "dedup", pairs, JoinRule(RADIUS, COSINE))
    vectors = unit_rows(2, NUM).astype(np.float64)
    by_hash = by_brute_force(np.bitwise_count(hashes[:, None] ^ hashes) <= RADIUS)
    assert ends(files, "phash") == by_hash
    assert ends(files, "cosine") == by_brute_force(vectors @ vectors.T >= COSINE)
    assert len(by_hash) > 50


def test_blocks_that_move_keep_their_files(tmp_path: Path, hashes: np.ndarray) -> None:
    found = []
    for shift in (0, 1000):
        blocks = blocks_of(tmp_path, parts_of(tmp_path / str(shift), hashes, shift=shift), shift=shift)
        runner = runner_of(tmp_path / "run")
        files = join(
            runner, "edges", "dedup", list(combinations_with_replacement(blocks, 2)), JoinRule(RADIUS)
        )
        assert runner.states[-1].num_done == (0 if shift == 0 else len(files))
        found.append(files)
    assert [file.file for file in found[0]] == [file.file for file in found[1]]
    assert {(a + 1000, b + 1000) for a, b in ends(found[0], "phash")} == ends(found[1], "phash")


def test_each_kind_of_file_has_a_step(tmp_path: Path, hashes: np.ndarray) -> None:
    blocks = blocks_of(tmp_path, parts_of(tmp_path, hashes))
    asked = []

    def pairs(files, *, only_pixels=False):
        asked.append((tuple(files), only_pixels))
        return [] if only_pixels else [(blocks[0], blocks[0])]

    runner = runner_of(tmp_path / "run")
    edges = join_by_kinds(runner, "dedup", JoinRule(phash_radius=3, pixels=True), pairs)
    assert len(edges) == 1
    assert list(runner.receipts) == ["dedup_edges"]
    assert asked == [(("described", "copy_vectors"), False), (("described",), True)]
    assert join_by_kinds(runner_of(tmp_path / "none"), "dedup", JoinRule(), pairs) == ()


def test_every_left_row_has_an_edge_and_of_equal_right_ones_the_smallest_id_stands(tmp_path: Path) -> None:
    ids = sorted(map(sha256_of, range(3)))
    vectors = unit_rows(0, 3)
    left = make_part(tmp_path, 0, offset=0, vectors=vectors, phash=[7, 7, 7])
    right = make_part(
        tmp_path,
        1,
        offset=3,
        vectors=vectors,
        role="holdout",
        phash=[7, 7, 7],
        sha256=[ids[1], ids[0], ids[2]],
    )
    rows = published(tmp_path / "rows.npy", np.arange(6))
    one, other = (Block.of([JoinedPart(part, "all", 3)], rows, ("described",)) for part in (left, right))
    files = join(
        runner_of(tmp_path / "run"), "edges", "decontaminate", [(one, other)], JoinRule(0, every_left=True)
    )
    assert ends(files, "phash") == {(0, 4), (1, 4), (2, 4)}
