"""The GPU's way of assigning, run on the CPU: fp16 proposes, and the answer is the exact one."""

import numpy as np
import pytest
import torch
from test_assignment import KINDS, hard_vectors, to_unit

from curation.cluster import gpu
from curation.cluster.gpu import GpuDesk, assign_on_gpu, sum_on_gpu
from curation.cluster.sums import sum_arrays
from curation.errors import ConfigError

pytestmark = pytest.mark.usefixtures("arithmetic")


@pytest.mark.parametrize("kind", KINDS)
def test_nearest_is_the_exact_argmax_over_several_tiles_and_blocks(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "TILE_CENTROIDS", 64)
    monkeypatch.setattr(gpu, "BLOCK_ROWS", 400)
    vectors = hard_vectors(kind, 900, 48, seed=1)
    centroids = to_unit(hard_vectors(kind, 200, 48, seed=2).astype(np.float32)).astype(np.float32)
    exact = vectors.astype(np.float64) @ centroids.astype(np.float64).T
    np.testing.assert_array_equal(assign_on_gpu(vectors, centroids, device="cpu"), exact.argmax(axis=1))


def test_equal_centroids_give_the_lowest() -> None:
    vectors = hard_vectors("round", 50, 16, seed=3)
    centroids = np.repeat(to_unit(hard_vectors("round", 4, 16, seed=4).astype(np.float32)), 3, axis=0)
    found = assign_on_gpu(vectors, centroids.astype(np.float32), device="cpu")
    assert set(found.tolist()) <= {0, 3, 6, 9}


def test_sums_are_those_of_a_cpu() -> None:
    vectors = hard_vectors("cone", 3000, 32, seed=5)
    centroids = to_unit(vectors[::60].astype(np.float32)).astype(np.float32)
    arrays = [vectors[:1000], vectors[1000:1001], vectors[1001:]]
    ours, expected = sum_on_gpu(arrays, centroids, device="cpu"), sum_arrays(arrays, centroids)
    np.testing.assert_array_equal(ours.sums, expected.sums)
    np.testing.assert_array_equal(ours.counts, expected.counts)


@pytest.mark.parametrize(("num_rows", "num_centroids", "dim"), [(0, 1, 1), (0, 9, 8), (1, 1, 1), (1, 9, 8)])
def test_few_rows_centroids_and_columns(num_rows: int, num_centroids: int, dim: int) -> None:
    vectors = hard_vectors("round", num_rows, dim, seed=8)
    centroids = to_unit(hard_vectors("round", num_centroids, dim, seed=9).astype(np.float32))
    centroids = centroids.astype(np.float32)
    exact = vectors.astype(np.float64) @ centroids.astype(np.float64).T
    desk = GpuDesk(centroids, device="cpu")
    np.testing.assert_array_equal(desk.assign(vectors, desk.encode(vectors)), exact.argmax(axis=1))
    np.testing.assert_array_equal(assign_on_gpu(vectors, centroids, device="cpu"), exact.argmax(axis=1))
    assert sum_on_gpu([vectors, vectors[:0]], centroids, device="cpu").counts.sum() == num_rows


def test_most_rows_are_told_by_the_product_alone() -> None:
    vectors = hard_vectors("round", 2000, 64, seed=6)
    centroids = to_unit(hard_vectors("round", 20, 64, seed=7).astype(np.float32)).astype(np.float32)
    desk = GpuDesk(centroids, device="cpu")
    row, _ = desk._propose(desk.encode(vectors))
    assert len(vectors) <= len(row) < 1.1 * len(vectors)


def test_without_a_gpu_it_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: tests/gpu/check_vectors.py compares it with the CPU")
    with pytest.raises(ConfigError, match="No GPU to cluster on"):
        GpuDesk(np.eye(4, dtype=np.float32))
