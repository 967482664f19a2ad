"""The join by cells finds exactly the pairs that meet, each once, with exact scores."""

from itertools import pairwise

import numpy as np
import pytest
from arithmetic import ARITHMETICS, forced
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.cluster.train_cells import train_cells
from curation.search import cell_join
from curation.search.cell_join import Visitors, join_cells
from curation.search.cells import nearest_cells
from curation.search.edges import Pairs, limit_edges
from curation.search.exact import cosine_pairs

pytestmark = pytest.mark.usefixtures("arithmetic")


def unit_vectors(rng: np.random.Generator, num_rows: int, *, dim: int, spread: float) -> np.ndarray:
    centres = rng.standard_normal((max(num_rows // 8, 1), dim))
    rows = centres[rng.integers(len(centres), size=num_rows)] + spread * rng.standard_normal((num_rows, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def join_all(
    everyone: Visitors, starts: list[int], *, cuts: int = 1, threshold: float, limit: int | None = None
) -> Pairs:
    """What a run does: one join for each run of cells, visitors in chunks, and the results put together."""
    found = []
    for first, last in pairwise(starts):
        home = everyone.cells[:, 0]
        visits = ((everyone.cells >= first) & (everyone.cells < last)).any(axis=1)
        residents = np.flatnonzero((home >= first) & (home < last))
        chunks = (everyone[places] for places in np.array_split(np.flatnonzero(visits), cuts))
        found.append(
            join_cells(
                everyone[residents],
                chunks,
                cells=range(first, last),
                rows=everyone.rows[visits],
                threshold=threshold,
                max_edges_per_row=limit,
            )
        )
    a, b, score = (np.concatenate([getattr(p, name) for p in found]) for name in ("a", "b", "score"))
    order = np.lexsort((b, a))
    return Pairs(a[order], b[order], score[order], num_dropped=sum(p.num_dropped for p in found))


def meeting(pairs: Pairs, cells: np.ndarray) -> Pairs:
    """Those of all pairs of which one row visits the other's home."""
    a_visits = (cells[pairs.a] == cells[pairs.b, :1]).any(axis=1)
    b_visits = (cells[pairs.b] == cells[pairs.a, :1]).any(axis=1)
    keep = a_visits | b_visits
    return Pairs(pairs.a[keep], pairs.b[keep], pairs.score[keep])


def assert_equal(got: Pairs, expected: Pairs) -> None:
    np.testing.assert_array_equal(got.a, expected.a)
    np.testing.assert_array_equal(got.b, expected.b)
    np.testing.assert_array_equal(got.score, expected.score)


def test_by_hand():
    vectors = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1], [0, 1]], np.float16)
    cells = np.array([[0, 1], [0, 0], [1, 0], [1, 1], [1, 1]], np.uint16)
    rows = np.array([10, 11, 12, 13, 14])
    pairs = join_all(Visitors(rows, vectors, cells), [0, 1, 2], threshold=0.5)
    # 11 and 12 meet since 12 visits cell 0; 11 and 13 (score 0.6) do not meet; 14 is a copy of 13.
    assert list(zip(pairs.a, pairs.b, strict=True)) == [(10, 11), (10, 12), (11, 12), (12, 13), (13, 14)]
    assert pairs.score[-1] == 1
    assert pairs.score[0] == float(np.float16(0.8))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_cells=st.integers(1, 25),
    num_probes=st.integers(1, 6),
    num_groups=st.integers(1, 4),
    cuts=st.integers(1, 4),
)
def test_finds_exactly_what_meets(seed, num_cells, num_probes, num_groups, cuts):
    rng = np.random.default_rng(seed)
    vectors = unit_vectors(rng, 200, dim=16, spread=0.6)
    centroids = train_cells(vectors, num_cells, seed=seed)
    cells = nearest_cells(vectors, centroids, num_probes=min(num_probes, num_cells))
    starts = sorted({0, num_cells, *rng.integers(0, num_cells, num_groups - 1).tolist()})
    got = join_all(Visitors(np.arange(200), vectors, cells), starts, cuts=cuts, threshold=0.7)
    everything = cosine_pairs(vectors, vectors, threshold=0.7, same=True)
    assert_equal(got, meeting(everything, cells))
    if num_probes >= num_cells:
        assert_equal(got, everything)


@pytest.mark.parametrize("tile", [16, 1000])
def test_tiles_and_arithmetic_do_not_matter(tile, monkeypatch):
    rng = np.random.default_rng(5)
    vectors = unit_vectors(rng, 200, dim=16, spread=0.4)
    cells = nearest_cells(vectors, train_cells(vectors, 7, seed=0), num_probes=3)
    everyone = Visitors(np.arange(200), vectors, cells)
    expected = join_all(everyone, [0, 7], threshold=0.6)
    monkeypatch.setattr(cell_join, "TILE_ROWS", tile)
    monkeypatch.setattr(cell_join, "TILE_COLUMNS", tile)
    assert_equal(join_all(everyone, [0, 7], threshold=0.6), expected)
    for other in ARITHMETICS:
        with forced(other):
            assert_equal(join_all(everyone, [0, 2, 7], threshold=0.6), expected)


def test_a_placeholder_costs_a_star():
    rng = np.random.default_rng(6)
    vectors = unit_vectors(rng, 400, dim=16, spread=0.5)
    vectors[100:] = vectors[100]
    cells = nearest_cells(vectors, train_cells(vectors[:150], 10, seed=0), num_probes=4)
    cells[101:] = cells[101:, :1]  # copies visit nobody
    pairs = join_all(Visitors(np.arange(400), vectors, cells), [0, 4, 10], threshold=0.6)
    stars = pairs.b > 100
    assert pairs.a[stars].tolist() == [100] * 299
    assert set(pairs.score[stars]) == {1.0}
    distinct = cosine_pairs(vectors[:101], vectors[:101], threshold=0.6, same=True)
    rest = Pairs(pairs.a[~stars], pairs.b[~stars], pairs.score[~stars])
    assert_equal(rest, meeting(distinct, cells))


def test_limited_groups_are_the_limited_whole():
    rng = np.random.default_rng(7)
    vectors = unit_vectors(rng, 300, dim=8, spread=0.3)
    cells = nearest_cells(vectors, train_cells(vectors, 12, seed=0), num_probes=4)
    everyone = Visitors(np.arange(300), vectors, cells)
    whole = join_all(everyone, [0, 12], threshold=0.6)
    keep = limit_edges(whole.a, whole.b, whole.score, max_edges_per_row=2)
    got = join_all(everyone, [0, 3, 8, 12], threshold=0.6, limit=2)
    assert got.num_dropped > 0
    again = limit_edges(got.a, got.b, got.score, max_edges_per_row=2)
    assert_equal(
        Pairs(got.a[again], got.b[again], got.score[again]),
        Pairs(whole.a[keep], whole.b[keep], whole.score[keep]),
    )


def test_nobody_is_at_home():
    nobody = Visitors(np.zeros(0, np.int64), np.zeros((0, 4), np.float16), np.zeros((0, 2), np.uint16))
    pairs = join_cells(nobody, [nobody], cells=range(3), rows=nobody.rows, threshold=0.5)
    assert len(pairs.a) == 0


@pytest.mark.parametrize("dim", [1, 2, 8])
@pytest.mark.parametrize("num_rows", [1, 2])
def test_few_rows_and_columns_and_empty_cells(num_rows, dim):
    vectors = np.tile(np.eye(1, dim), (num_rows, 1)).astype(np.float16)
    vectors[1:] *= np.float16(0.9)  # no copy
    cells = np.array([[1, 2], [3, 1]], np.uint16)[:num_rows]  # nobody is at home in 0, 2 and 4
    pairs = join_all(Visitors(np.arange(num_rows), vectors, cells), [0, 1, 2, 5], cuts=3, threshold=0.5)
    assert list(zip(pairs.a, pairs.b, strict=True)) == [(0, 1)][: num_rows - 1]
