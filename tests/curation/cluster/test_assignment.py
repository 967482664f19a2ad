"""Every sieve leaves the exact answer in, on vectors that are made to be hard for it."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from curation.cluster import assignment, blocks
from curation.cluster.assignment import Assigned, Desk, decide, mean_of, search_for
from curation.cluster.blocks import for_each_block

pytestmark = pytest.mark.usefixtures("arithmetic")


def to_unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def hard_vectors(kind: str, num_rows: int, dim: int, *, seed: int) -> np.ndarray:
    """fp16 unit vectors in a narrow cone, with outlying dimensions, in few directions, or with tiny parts."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((num_rows, dim))
    match kind:
        case "cone":
            vectors = 0.2 * vectors + rng.standard_normal(dim)
        case "outliers":
            vectors[:, :2] += [40, -25]
        case "flat":
            vectors *= np.arange(1, dim + 1) ** -1.5
        case "signs":
            vectors = np.sign(vectors)
    return to_unit(vectors).astype(np.float16)


KINDS = ["round", "cone", "outliers", "flat", "signs"]


def assign_all(vectors: np.ndarray, centroids: np.ndarray, dtype: str) -> Assigned:
    desk = Desk(search_for(centroids, dtype=dtype))
    return desk.assign(vectors, desk.encode(vectors))


@pytest.mark.parametrize("kind", KINDS)
def test_nearest_is_the_exact_argmax_over_several_tiles(
    kind: str, arithmetic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assignment, "TILE_CENTROIDS", 64)
    vectors = hard_vectors(kind, 900, 48, seed=1)
    centroids = to_unit(hard_vectors(kind, 200, 48, seed=2).astype(np.float32)).astype(np.float32)
    exact = vectors.astype(np.float64) @ centroids.astype(np.float64).T
    np.testing.assert_array_equal(assign_all(vectors, centroids, arithmetic).cluster, exact.argmax(axis=1))


@pytest.mark.parametrize("dim", [1, 2, 24])
@pytest.mark.parametrize("num_centroids", [1, 2, 20, 129])
@pytest.mark.parametrize("num_rows", [0, 1, 17])
def test_any_number_of_rows_centroids_and_columns(
    num_rows: int, num_centroids: int, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assignment, "TILE_CENTROIDS", 64)
    vectors = hard_vectors("round", num_rows, dim, seed=8)
    centroids = to_unit(hard_vectors("round", num_centroids, dim, seed=9).astype(np.float32))
    centroids = centroids.astype(np.float32)
    exact = vectors.astype(np.float64) @ centroids.astype(np.float64).T
    desk = Desk(search_for(centroids))
    codes = desk.encode(vectors)
    np.testing.assert_array_equal(desk.assign(vectors, codes).cluster, exact.argmax(axis=1))
    from_origin = exact - (vectors.astype(np.float64) @ mean_of(centroids))[:, None]
    assert (desk.ceiling(codes) >= from_origin.max(axis=1) - 1e-7).all()
    nobody = np.zeros(0, np.int64)
    assert len(desk.assign(vectors, codes[nobody], nobody).cluster) == 0
    assert len(desk.ceiling(codes[nobody])) == 0


def test_near_ties_among_none_are_decided_too() -> None:
    nothing = np.zeros(0, np.int64)
    vectors, centroids = np.zeros((0, 4), np.float16), np.eye(4, dtype=np.float32)
    assert len(decide(vectors, centroids, nothing, nothing)) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_hold(kind: str) -> None:
    vectors = hard_vectors(kind, 500, 96, seed=3)
    centroids = to_unit(hard_vectors(kind, 60, 96, seed=4).astype(np.float32)).astype(np.float32)
    origin = mean_of(centroids)
    exact = vectors.astype(np.float64) @ centroids.astype(np.float64).T
    from_origin = exact - (vectors.astype(np.float64) @ origin.astype(np.float64))[:, None]
    desk = Desk(search_for(centroids, origin=origin))
    codes = desk.encode(vectors)
    found = desk.assign(vectors, codes)
    ranked = np.sort(exact, axis=1)
    assert (found.lead <= ranked[:, -1] - ranked[:, -2] + 1e-7).all()
    assert (found.low <= from_origin.max(axis=1) + 1e-7).all()
    ceiling = desk.ceiling(codes)
    assert (ceiling >= from_origin.max(axis=1) - 1e-7).all()
    if kind == "round":
        assert (ceiling - found.low).max() < 0.05, "a bound that holds for being wide is of no use"


def test_a_lower_precision_that_others_set_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = hard_vectors("cone", 200, 32, seed=0)
    centroids = to_unit(vectors[:20].astype(np.float64)).astype(np.float32)
    expected = assign_all(vectors, centroids, "fp32")

    def lowered(*_args: object, **_more: object) -> torch.Tensor:
        raise AssertionError("torch would multiply in bf16")

    monkeypatch.setattr(torch.nn.functional, "conv2d", lowered)
    settings = torch.backends.mkldnn.conv
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        found = assign_all(vectors, centroids, "fp32")
    finally:
        settings.fp32_precision = before
    np.testing.assert_array_equal(found.cluster, expected.cluster)


def test_only_some_rows_are_assigned() -> None:
    vectors = hard_vectors("cone", 300, 32, seed=5)
    centroids = to_unit(hard_vectors("cone", 40, 32, seed=6).astype(np.float32)).astype(np.float32)
    desk = Desk(search_for(centroids))
    codes = desk.encode(vectors)
    whole = desk.assign(vectors, codes)
    rows = np.array([3, 17, 18, 250])
    some = desk.assign(vectors, codes[rows], rows)
    for name in ("cluster", "lead", "low"):
        np.testing.assert_array_equal(getattr(some, name), getattr(whole, name)[rows])


@pytest.mark.parametrize("num_threads", [1, 3])
def test_blocks_cover_all_rows_once_on_any_number_of_threads(
    num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_ROWS", 10)
    sizes = [0, 7, 31, 10, 0]
    vectors = [np.full((size, 2), i, np.float16) for i, size in enumerate(sizes)]
    seen = np.full(sum(sizes), -1)

    def opened() -> Iterator[np.ndarray]:
        yield from vectors

    def work(rows: slice, block: np.ndarray) -> None:
        assert len(block) <= 10
        seen[rows] = block[:, 0]

    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        for_each_block(opened(), lambda: work)
        assert torch.get_num_threads() == num_threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(seen, np.repeat(range(5), sizes))


def test_an_error_in_a_thread_is_raised() -> None:
    def fail(_rows: slice, _block: np.ndarray) -> None:
        raise OSError("the disk is gone")

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(OSError, match="the disk is gone"):
            for_each_block([np.zeros((5, 2), np.float16)] * 2, lambda: fail)
    finally:
        torch.set_num_threads(before)
