"""The nearest survivors of some parts, against a sort of all scores."""

from pathlib import Path

import numpy as np
import pytest
from part_files import make_part, published, sha256_of, unit_rows

from curation.search.topk import TopK
from pipelines.engine.step import FileRef
from pipelines.rows.parts import Part
from pipelines.stages.retrieve.exact_search import exact_neighbours, read_found, write_found
from pipelines.stages.retrieve.neighbours import Queries, files_of

SIZE, NUM = 15, 60
TIED = [20, 33, 41, 52]  # of one vector


@pytest.fixture
def vectors() -> np.ndarray:
    rows = unit_rows(0, NUM)
    rows[TIED] = rows[20]
    return rows


@pytest.fixture
def parts(tmp_path: Path, vectors: np.ndarray) -> list[Part]:
    """One of a curated pool, three of the pool."""
    return [
        make_part(
            tmp_path, i, offset=SIZE * i, vectors=vectors[SIZE * i : SIZE * (i + 1)],
            pool="web" if i else "trusted", role="uncurated" if i else "curated",
            sha256=[sha256_of(row) for row in range(SIZE * i, SIZE * (i + 1))],
        )
        for i in range(NUM // SIZE)
    ]  # fmt: skip


def alive_without(folder: Path, *dead: int) -> FileRef:
    return published(folder / f"alive{len(dead)}.npy", ~np.isin(np.arange(NUM), dead))


def by_sorting(vectors: np.ndarray, queries: list[int], rows: np.ndarray, *, k: int) -> list[list[int]]:
    """Ties go by image id."""
    exact = vectors.astype(np.float64)
    rank = {row: place for place, row in enumerate(sorted(rows.tolist(), key=sha256_of))}
    return [
        sorted(rows.tolist(), key=lambda row, q=query: (-float(exact[q] @ exact[row]), rank[row]))[:k]
        for query in queries
    ]


@pytest.mark.parametrize("dead", [(), (33, 47), tuple(range(30, 45))])
def test_they_are_the_best_of_all_scores(
    dead: tuple[int, ...], parts: list[Part], vectors: np.ndarray, tmp_path: Path
) -> None:
    queries = [0, 3, 7, 14]
    alive = alive_without(tmp_path, *dead)
    found = exact_neighbours(Queries(parts, np.array(queries)), parts[1:], alive=alive, neighbours=6)
    rows = np.setdiff1d(np.arange(SIZE, NUM), dead)
    assert found.index.tolist() == by_sorting(vectors, queries, rows, k=6)
    expected = (vectors[queries].astype(np.float64) @ vectors.astype(np.float64).T)[
        np.arange(4)[:, None], found.index
    ]
    np.testing.assert_allclose(found.score, expected, atol=1e-12)


def test_of_equal_ones_the_smallest_ids_come_first(
    parts: list[Part], vectors: np.ndarray, tmp_path: Path
) -> None:
    own = make_part(tmp_path, 9, offset=0, vectors=vectors[TIED[:1]], pool="asks", role="curated")
    alive = alive_without(tmp_path)
    found = exact_neighbours(Queries([own], np.array([0])), parts[1:], alive=alive, neighbours=3)
    assert found.index.tolist() == [sorted(TIED, key=sha256_of)[:3]]


def test_where_the_pool_runs_out_and_where_there_is_none(parts: list[Part], tmp_path: Path) -> None:
    asked = Queries(parts, np.array([0, 1]))
    alive = alive_without(tmp_path, *range(17, NUM))
    few = exact_neighbours(asked, parts[1:], alive=alive, neighbours=4)
    assert sorted(few.index[0].tolist()) == [-1, -1, 15, 16]
    nothing = exact_neighbours(asked, [], alive=alive, neighbours=4)
    assert (nothing.index == -1).all()
    assert (nothing.score == -np.inf).all()


def test_what_is_left_by_an_item_is_read_again(tmp_path: Path) -> None:
    found = TopK(np.array([[4, -1]]), np.array([[0.5, -np.inf]]))
    write_found(tmp_path, found, "0-truth")
    row, score = (published(tmp_path / name) for name in files_of("0-truth"))
    again = read_found((row, score))
    np.testing.assert_array_equal(again.index, found.index)
    np.testing.assert_array_equal(again.score, found.score)
