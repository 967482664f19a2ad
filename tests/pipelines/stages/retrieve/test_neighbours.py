"""Who asks, who may be found, and where what was found lies."""

from pathlib import Path

import numpy as np
import pytest
from part_files import make_part, published, unit_rows

from pipelines.engine.step import FileRef, Receipt
from pipelines.rows.parts import Part
from pipelines.stages.retrieve.neighbours import Queries, files_of, found_in, query_rows, rows_of

VECTORS = unit_rows(0, 12)


@pytest.fixture
def parts(tmp_path: Path) -> list[Part]:
    pools = [("trusted", "curated"), ("web", "uncurated"), ("again", "curated")]
    return [
        make_part(tmp_path, i, offset=4 * i, vectors=VECTORS[4 * i : 4 * i + 4], pool=pool, role=role)
        for i, (pool, role) in enumerate(pools)
    ]


@pytest.fixture
def alive(tmp_path: Path) -> FileRef:
    return published(tmp_path / "alive.npy", np.isin(np.arange(12), [1, 3, 4, 5, 7, 9]))


def test_the_survivors_of_a_pool_ask(parts: list[Part], alive: FileRef) -> None:
    assert query_rows(parts, alive, "trusted").tolist() == [1, 3]
    assert query_rows(parts, alive, "again").tolist() == [9]
    asked = Queries(parts, query_rows(parts, alive, "trusted"))
    np.testing.assert_array_equal(asked.vectors(), VECTORS[[1, 3]])


def test_rows_are_global(parts: list[Part]) -> None:
    assert rows_of(parts[1:]).tolist() == list(range(4, 12))


def test_an_item_leaves_rows_and_scores_by_name() -> None:
    files = {name: (8, name[:2]) for names in (files_of(""), files_of("0-1")) for name in names}
    receipt = Receipt("retrieve_shards", "i", "steps/s/i", files, {})
    row, score = found_in(receipt, "/run", "0-1")
    assert (row.path, score.path) == ("/run/steps/s/i/row-0-1.npy", "/run/steps/s/i/score-0-1.npy")
    assert found_in(receipt, "/run")[0].path.endswith("/row.npy")
