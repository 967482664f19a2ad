"""Cells: the nearest ones are those of a full sort, and the same on every machine."""

import numpy as np
import pytest
from arithmetic import ARITHMETICS, forced
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import ConfigError
from curation.search import cells
from curation.search.cells import group_cells, nearest_cells, needed_probes
from curation.search.cells_config import default_num_cells

pytestmark = pytest.mark.usefixtures("arithmetic")


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def concepts(rng: np.random.Generator, num_rows: int, *, num_concepts: int, dim: int) -> np.ndarray:
    centres = rng.standard_normal((num_concepts, dim))
    noise = 0.3 * rng.standard_normal((num_rows, dim))
    return unit(centres[np.arange(num_rows) % num_concepts] + noise)


def test_by_hand():
    centroids = np.array([[1, 0], [0, 1], [-1, 0], [0, 1]], np.float16)
    vectors = unit(np.array([[1, 0.1], [0.1, 1], [-1, 0.1]]))
    got = nearest_cells(vectors, centroids, num_probes=3)
    assert got.tolist() == [[0, 1, 3], [1, 3, 0], [2, 1, 3]]  # equals by number
    assert needed_probes(vectors, centroids, cell=np.array([3, 3, 0], np.uint16)).tolist() == [3, 2, 4]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_cells=st.integers(1, 300),
    num_probes=st.integers(1, 20),
    dim=st.sampled_from([1, 2, 24]),
)
def test_nearest_are_those_of_a_full_sort(seed, num_cells, num_probes, dim):
    rng = np.random.default_rng(seed)
    vectors, centroids = (unit(rng.standard_normal((n, dim))) for n in (37, num_cells))
    centroids[num_cells // 2 :: 3] = centroids[0]  # ties
    num_probes = min(num_probes, num_cells)
    (_, nearness), *_ = cells.cell_products(vectors, centroids)
    expected = np.argsort(-nearness.astype(np.int64), axis=1, kind="stable")
    got = nearest_cells(vectors, centroids, num_probes=num_probes)
    np.testing.assert_array_equal(got, expected[:, :num_probes])
    rank = needed_probes(vectors, centroids, cell=got[:, -1])
    np.testing.assert_array_equal(rank, num_probes)
    # Codes are rounded to 8 bits, and that is all: near is near.
    exact = vectors.astype(np.float64) @ centroids.astype(np.float64).T
    home = np.take_along_axis(exact, got[:, :1].astype(np.int64), axis=1)[:, 0]
    assert (home >= exact.max(axis=1) - 0.03).all()


def test_any_cut_and_any_machine_agree(monkeypatch):
    rng = np.random.default_rng(0)
    sample = concepts(rng, 800, num_concepts=20, dim=32)
    centroids = concepts(rng, 40, num_concepts=20, dim=32)
    whole = nearest_cells(sample, centroids, num_probes=5)
    parts = [nearest_cells(sample[i : i + 93], centroids, num_probes=5) for i in range(0, 800, 93)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    monkeypatch.setattr(cells, "_TILE_ROWS", 50)
    for other in ARITHMETICS:
        with forced(other):
            np.testing.assert_array_equal(nearest_cells(sample, centroids, num_probes=5), whole)


@pytest.mark.parametrize("dim", [1, 2, 700])  # of 700 numbers fp32 does not hold all sums
@pytest.mark.parametrize(("num_rows", "num_cells"), [(0, 1), (0, 9), (1, 1), (1, 9), (30, 1)])
def test_few_rows_cells_and_columns(num_rows, num_cells, dim):
    rng = np.random.default_rng(4)
    vectors, centroids = (unit(rng.standard_normal((n, dim))) for n in (num_rows, num_cells))
    order = nearest_cells(vectors, centroids, num_probes=num_cells)
    assert np.sort(order, axis=1).tolist() == [list(range(num_cells))] * num_rows
    assert needed_probes(vectors, centroids, cell=order[:, -1]).tolist() == [num_cells] * num_rows


def test_no_cell_is_near():
    vectors = unit(np.eye(3))
    assert [(rows, found.shape) for rows, found in cells.cell_products(vectors, vectors[:0])] == [
        (slice(0, 3), (3, 0))
    ]


def test_groups_are_runs_of_cells():
    assert group_cells(np.array([5, 5, 5, 5]), num_groups=2).tolist() == [0, 2, 4]
    assert group_cells(np.array([100, 1, 1, 1]), num_groups=3).tolist() == [0, 1, 4]
    assert group_cells(np.array([7]), num_groups=4).tolist() == [0, 1]
    sizes = np.random.default_rng(0).integers(0, 50, 200)
    starts = group_cells(sizes, num_groups=8)
    assert starts[0] == 0
    assert starts[-1] == 200
    assert (np.diff(starts) > 0).all()
    sums = np.add.reduceat(sizes, starts[:-1])
    assert sums.max() <= sizes.sum() / 8 + 2 * sizes.max()


def test_default_number_of_cells():
    assert [default_num_cells(n) for n in (0, 1, 100, 10_000, 1_000_000, 10**9)] == [
        1,
        1,
        12,
        400,
        4000,
        65536,
    ]


def test_refuses_nonsense():
    rows = np.eye(4, dtype=np.float16)
    with pytest.raises(ConfigError, match="visit so many"):
        nearest_cells(rows, rows, num_probes=5)
