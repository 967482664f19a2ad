"""Blocks: which rows take part, told without their place: a pool that grows leaves others as they are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from part_files import make_part, published, unit_rows

from pipelines.engine.step import Receipt
from pipelines.rows.parts import Part
from pipelines.stages.copies.blocks import (
    Block,
    JoinedFile,
    JoinedRows,
    copy_vectors,
    joined_rows,
    rows_with_vectors,
    write_joined,
)

MINIATURE = bytes(3089)


def parts_of(folder: Path, *pools: str) -> list[Part]:
    """Parts of 10 rows; the third row of each is of poor hash and has a miniature, the fourth no vector."""
    bits = [64, 64, 3, *[64] * 7]
    parts = []
    for number, pool in enumerate(pools):
        vectors = unit_rows(len(pool) + pools[:number].count(pool), 10)
        vectors[3] = 0
        parts.append(
            make_part(
                folder, pools[:number].count(pool), pool=pool, offset=10 * number, vectors=vectors,
                certain_bits=bits, miniature=[MINIATURE if b < 60 else None for b in bits],
            )
        )  # fmt: skip
    return parts


def rows_to_join(folder: Path, parts: list[Part], rows: list[int], *, block_rows: int = 15) -> JoinedRows:
    folder.mkdir()
    facts = write_joined(folder, parts, np.array(rows, np.int64))
    files = {str(name): published(folder / name)[1:] for name in JoinedFile}
    return JoinedRows(parts, Receipt("rows", "i", folder.name, files, facts), str(folder.parent), block_rows)


def everyone(_pool: str) -> bool:
    return True


def test_blocks_hold_the_rows_of_their_parts_that_take_part(tmp_path: Path) -> None:
    parts = parts_of(tmp_path, "web", "web", "web", "books")
    joined = rows_to_join(tmp_path / "rows", parts, [0, 9, 12, 15, 22, 31, 32, 39])
    blocks = joined.blocks(everyone)
    assert [joined_rows(block).tolist() for block in blocks] == [[0, 9, 12, 15], [22], [31, 32, 39]]
    assert [block.first_row for block in blocks] == [0, 20, 30]
    assert [joined_rows(block).tolist() for block in joined.blocks(lambda pool: pool == "books")] == [
        [31, 32, 39]
    ]


def test_blocks_by_pixels_span_many_parts(tmp_path: Path) -> None:
    parts = parts_of(tmp_path, "web", "web", "web", "books")
    joined = rows_to_join(tmp_path / "rows", parts, [0, 2, 12, 15, 22, 31, 39], block_rows=3)
    assert joined.written.facts["pixel_counts"] == [1, 1, 1, 0]
    blocks = joined.blocks(everyone, ("described",), only_pixels=True)
    assert [joined_rows(block).tolist() for block in blocks] == [[2, 12, 22], []]
    assert joined.blocks(lambda pool: pool == "books", ("described",), only_pixels=True) == []


def test_a_pool_that_grows_leaves_the_blocks_of_others_and_its_own_old_ones(tmp_path: Path) -> None:
    def digests(parts: list[Part], rows: list[int], name: str) -> list[str]:
        return [block.digest for block in rows_to_join(tmp_path / name, parts, rows).blocks(everyone)]

    before = digests(parts_of(tmp_path, "web", "web", "books"), [1, 15, 21, 22], "before")
    grown = digests(parts_of(tmp_path, "web", "web", "web", "books"), [1, 15, 25, 31, 32], "grown")
    assert (grown[0], grown[2]) == (before[0], before[1])
    others = digests(parts_of(tmp_path, "web", "web", "books"), [1, 14, 21, 22], "others")
    assert others[0] != before[0]
    assert others[1] == before[1]


def test_what_a_descriptor_says_nothing_of_has_none(tmp_path: Path) -> None:
    parts = parts_of(tmp_path, "web", "web")
    block = replace(Block.of([], parts[0].images, ()), parts=tuple(parts))
    rows = np.array([1, 2, 3, 12, 14])
    vectors = copy_vectors(block, rows)
    assert vectors.any(axis=1).tolist() == [True, False, False, False, True]
    found, own = rows_with_vectors(block, rows)
    assert found.tolist() == [1, 14]
    np.testing.assert_array_equal(own, vectors[[0, 4]])
    every, _ = rows_with_vectors(block, rows[[0, 4]])
    assert every.tolist() == [1, 14]
