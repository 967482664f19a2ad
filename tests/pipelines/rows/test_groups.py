"""Parts in runs: how many there are of them, without cutting millions of parts."""

import numpy as np

from pipelines.engine.step import FileRef
from pipelines.rows.groups import AlikeParts, alike_parts, make_groups, num_groups, num_rows_of
from pipelines.rows.parts import Part
from pipelines.stages.copies.blocks import JoinedPart, make_blocks, num_blocks

NOTHING = FileRef("", 0, "")


def test_groups_close_once_they_have_enough() -> None:
    assert make_groups("abcde", [3, 0, 4, 9, 1], rows=7) == [("a", "b", "c"), ("d",), ("e",)]


def test_alike_parts_are_counted_as_they_are_cut() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        runs = [
            AlikeParts("web", int(rng.integers(0, 60)), int(rng.integers(0, 30)))
            for _ in range(rng.integers(0, 5))
        ]
        sizes = [alike.num_rows for alike in runs for _ in range(alike.num_parts)]
        rows = int(rng.integers(1, 120))
        # Parts without a row that come last make a group of their own, however many they are.
        assert num_groups(runs, rows=rows) == len(make_groups(sizes, sizes, rows=rows)), (runs, rows)


def test_a_billion_parts_are_counted_at_once() -> None:
    assert num_groups([AlikeParts("web", 10**9, 10)], rows=100) == 10**8
    # Of which a seventh counts.
    assert num_groups([AlikeParts("web", 10**9, 10)], rows=10 / (1 / 7)) == -(-(10**9) // 7)


def parts(*sizes: tuple[str, int]) -> list[Part]:
    return [Part(i, pool, "uncurated", 0, rows, NOTHING) for i, (pool, rows) in enumerate(sizes)]


def test_listed_parts_are_alike_where_they_are() -> None:
    listed = parts(("a", 5), ("a", 5), ("a", 2), ("b", 2))
    assert alike_parts(listed) == (AlikeParts("a", 2, 5), AlikeParts("a", 1, 2), AlikeParts("b", 1, 2))
    assert num_rows_of(alike_parts(listed)) == 14


def test_blocks_are_counted_as_they_are_cut() -> None:
    """A block has images of one pool."""
    rng = np.random.default_rng(1)
    for _ in range(100):
        pools = sorted(rng.choice(["a", "b", "c"], size=rng.integers(1, 20)).tolist())
        listed = parts(*((pool, int(rng.integers(1, 9))) for pool in pools))
        joined = [JoinedPart(part, "", part.num_rows) for part in listed]
        blocks = make_blocks(joined, NOTHING, block_rows=11, files=("described",))
        assert len(blocks) == num_blocks(alike_parts(listed), block_rows=11)
        ends = np.cumsum([len(block.parts) for block in blocks]).tolist()
        for block, start, stop in zip(blocks, [0, *ends], ends, strict=False):
            assert len(set(pools[start:stop])) == 1
            assert sum(part.num_rows for part in block.parts[:-1]) < 11
