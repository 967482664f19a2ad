"""Which pictures are compared by their pixels, and where these lie."""

from pathlib import Path

import numpy as np
from part_files import make_part

from curation.describe.miniature import MAKE_BELOW_BITS
from curation.describe.phash import MIN_CERTAIN_BITS
from curation.search.miniatures import NUM_BYTES
from pipelines.rows.parts import Part
from pipelines.stages.copies.poor_pictures import gather_miniatures, has_miniature, is_poor

BITS = [1, MIN_CERTAIN_BITS - 1, MIN_CERTAIN_BITS, MAKE_BELOW_BITS - 1, MAKE_BELOW_BITS, None]


def miniature(number: int) -> bytes:
    return bytes([number]) * NUM_BYTES


def parts_of(folder: Path) -> list[Part]:
    """Two parts of six rows: of the fifth the hash knows enough, the sixth was not decoded."""
    vectors = np.zeros((6, 4))
    return [
        make_part(
            folder, number, offset=6 * number, vectors=vectors, certain_bits=BITS,
            miniature=[*(miniature(10 * number + row) for row in range(4)), None, None],
        )
        for number in range(2)
    ]  # fmt: skip


def test_a_hash_of_few_certain_bits_is_poor(tmp_path: Path) -> None:
    parts = parts_of(tmp_path)
    assert is_poor(parts).tolist() == 2 * [True, True, False, False, False, False]
    assert has_miniature(parts).tolist() == 2 * [True, True, True, True, False, False]


def test_miniatures_come_in_the_order_asked_for(tmp_path: Path) -> None:
    parts = parts_of(tmp_path)
    found = gather_miniatures(parts, np.array([9, 0, 6, 3, 0]))
    assert found[:, 0].tolist() == [13, 0, 10, 3, 0]
    assert (found == found[:, :1]).all()
    assert gather_miniatures(parts[1:], np.array([7]))[:, 0].tolist() == [11]
    assert gather_miniatures(parts, np.zeros(0, np.int64)).shape == (0, NUM_BYTES)
