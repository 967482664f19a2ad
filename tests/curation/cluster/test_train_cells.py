"""Trained cells: as many as asked for, where vectors are, near ones side by side, and the same everywhere."""

import numpy as np
import pytest
from arithmetic import ARITHMETICS, forced

from curation.cluster.train_cells import train_cells
from curation.errors import ConfigError
from curation.search.cells import nearest_cells

pytestmark = pytest.mark.usefixtures("arithmetic")


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def concepts(rng: np.random.Generator, num_rows: int, *, num_concepts: int, dim: int) -> np.ndarray:
    centres = rng.standard_normal((num_concepts, dim))
    noise = 0.3 * rng.standard_normal((num_rows, dim))
    return unit(centres[np.arange(num_rows) % num_concepts] + noise)


def test_training_finds_the_concepts() -> None:
    sample = concepts(np.random.default_rng(1), 2000, num_concepts=10, dim=32)
    centroids = train_cells(sample, 40, seed=0)
    assert np.linalg.norm(centroids.astype(np.float64), axis=1) == pytest.approx(1, abs=2e-3)
    home = nearest_cells(sample, centroids, num_probes=1)[:, 0]
    assert np.bincount(home, minlength=40).min() > 0
    for cell in range(40):  # no cell mixes concepts
        assert len(set(np.flatnonzero(home == cell) % 10)) == 1


def test_a_row_visits_few_runs_of_cells() -> None:
    """Near cells have near numbers, so a group of them has few visitors from outside."""
    rng = np.random.default_rng(2)
    sample = concepts(rng, 2000, num_concepts=20, dim=32)
    centroids = train_cells(sample, 100, seed=0)

    def groups_visited(numbered: np.ndarray) -> int:
        visited = np.sort(nearest_cells(sample, numbered, num_probes=5) // 25, axis=1)
        return int((np.diff(visited, axis=1) > 0).sum()) + len(sample)

    assert groups_visited(centroids) < 0.7 * groups_visited(rng.permutation(centroids))


def test_equal_vectors_fill_one_cell() -> None:
    sample = np.tile(unit(np.ones((1, 8))), (50, 1))
    centroids = train_cells(sample, 5, seed=0)
    assert len(set(nearest_cells(sample, centroids, num_probes=1)[:, 0])) == 1


def test_any_machine_trains_the_same_cells() -> None:
    sample = concepts(np.random.default_rng(0), 800, num_concepts=20, dim=32)
    centroids = train_cells(sample, 40, seed=3)
    for other in ARITHMETICS:
        with forced(other):
            np.testing.assert_array_equal(train_cells(sample, 40, seed=3), centroids)


@pytest.mark.parametrize("dim", [1, 2, 700])
@pytest.mark.parametrize(("num_rows", "num_cells"), [(1, 1), (9, 9), (30, 1), (30, 5)])
def test_few_rows_cells_and_columns(num_rows: int, num_cells: int, dim: int) -> None:
    vectors = unit(np.random.default_rng(4).standard_normal((num_rows, dim)))
    assert train_cells(vectors, num_cells, seed=0).shape == (num_cells, dim)


def test_more_cells_than_vectors_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_cells"):
        train_cells(np.eye(4, dtype=np.float16), 5, seed=0)
