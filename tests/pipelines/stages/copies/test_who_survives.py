"""The rows that dedup and decontaminate look at, and those that are left after them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from part_files import attempt_at, make_part, published, sha256_of

from curation import storage
from curation.schema import COPIES, LEAKS
from pipelines.engine.step import NoSettings
from pipelines.rows.parts import Part
from pipelines.stages.copies.blocks import JoinedFile
from pipelines.stages.copies.decontaminate import DescribedTask, survivors
from pipelines.stages.copies.decontaminate import _load_rows as load_described
from pipelines.stages.copies.dedup import (
    FIRSTS,
    DedupRowsTask,
    RowsSettings,
    _load_rows,
    survivor_rank,
    usable,
)


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Part, ...]:
    """Three of each pool; 1 is broken, 4 was judged, 5 has the bytes of 0, and 7 those of 3."""
    vectors, ids = np.zeros((3, 4)), [sha256_of(row) for row in range(9)]
    ids[5], ids[7] = ids[0], ids[3]
    return (
        make_part(tmp_path, 0, offset=0, vectors=vectors, pool="trusted", role="curated", sha256=ids[:3],
                  reason=[None, "truncated", None], width=[10, 10, 30]),
        make_part(tmp_path, 1, offset=3, vectors=vectors, sha256=ids[3:6],
                  verdicts=[None, "too_small", None]),
        make_part(tmp_path, 2, offset=6, vectors=vectors, pool="test", role="holdout", sha256=ids[6:]),
    )  # fmt: skip


def test_the_first_of_equal_bytes_stands_for_the_others(parts: tuple[Part, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    facts = _load_rows(RowsSettings(frozenset({"test"})))(attempt_at(DedupRowsTask(parts), out))
    assert storage.read_vectors(str(out / JoinedFile.ROWS)).tolist() == [0, 2, 3]
    assert storage.read_vectors(str(out / FIRSTS)).tolist() == [[0, 0], [2, 2], [3, 3], [5, 0]]
    assert (facts["num_rows"], facts["num_joined"]) == (4, 3)


def test_every_decoded_image_may_leak(parts: tuple[Part, ...], tmp_path: Path) -> None:
    facts = load_described(NoSettings())(attempt_at(DescribedTask(parts), tmp_path))
    assert storage.read_vectors(str(tmp_path / JoinedFile.ROWS)).tolist() == [0, 2, 3, 4, 5, 6, 7, 8]
    assert facts["num_rows"] == 8


def test_a_curated_image_survives_then_the_larger_one(parts: tuple[Part, ...]) -> None:
    assert np.argsort(survivor_rank(parts))[:3].tolist()[0] == 2  # curated, and of the largest area
    assert set(np.argsort(survivor_rank(parts))[:3].tolist()) == {0, 1, 2}


def test_who_is_left(parts: tuple[Part, ...], tmp_path: Path) -> None:
    assert usable(parts).tolist() == [True, False, True, True, False, True, True, True, True]
    copies = pa.Table.from_pylist(
        [
            {"row": 0, "component": 0, "representative": 0, "reason": None, "score": 1.0},
            {"row": 5, "component": 0, "representative": 0, "reason": "exact_copy", "score": 1.0},
        ],
        COPIES,
    )
    leak = {"row": 3, "holdout": 7, "score": 1.0, "kind": "exact", "by_component": False}
    files = (
        published(tmp_path / "copies.parquet", copies),
        published(tmp_path / "leaks.parquet", pa.Table.from_pylist([leak], LEAKS)),
    )
    assert np.flatnonzero(survivors(parts, *files)).tolist() == [0, 2]
