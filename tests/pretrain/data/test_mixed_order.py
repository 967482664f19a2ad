"""A mixture holds its shares in every window, goes through each dataset's own epochs, and needs no past."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretrain.data.loader import Share
from pretrain.data.order import MIX_BLOCK, FullShuffle, MixedOrder, Order, WindowShuffle, shares_of


def mixed(weights: list[float], sizes: list[int], *, seed: int = 0) -> MixedOrder:
    orders = [FullShuffle(size, seed=100 + number) for number, size in enumerate(sizes)]
    return MixedOrder(orders, sizes=sizes, shares=shares_of(weights), seed=seed)


def test_shares_by_hand() -> None:
    assert shares_of([3.0]) == [1000]
    assert shares_of([1.0, 1.0, 1.0]) == [334, 333, 333]  # of equal remainders the first
    assert shares_of([0.7, 0.2, 0.1]) == [700, 200, 100]
    assert shares_of([2.0, 1.0]) == [667, 333]
    assert shares_of([0.1, 0.2, 0.7]) == shares_of([1.0, 2.0, 7.0]) == [100, 200, 700]
    assert shares_of([1e-9, 1.0]) == [0, 1000]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8))
def test_shares_are_within_one_of_what_the_weights_say(weights: list[float]) -> None:
    shares = shares_of(weights)
    assert sum(shares) == MIX_BLOCK
    quotas = np.array(weights) / sum(weights) * MIX_BLOCK
    assert (np.abs(shares - quotas) < 1 + 1e-6).all()


def test_every_block_has_the_shares() -> None:
    order = mixed([5.0, 3.0, 2.0], [211, 4001, 37])
    assert isinstance(order, Order)
    positions = np.arange(5 * MIX_BLOCK)
    datasets, _ = order.places(positions)
    for block in datasets.reshape(5, MIX_BLOCK):
        assert np.bincount(block).tolist() == [500, 300, 200]
    # And any window of 1,000 lies over two blocks: what one has too much, the other lacks at most.
    counts = np.cumsum(datasets == 0)
    windows = counts[MIX_BLOCK:] - counts[:-MIX_BLOCK]
    assert np.abs(windows - 500).max() < 80  # four standard deviations are 63
    batches = (datasets[: 32 * 150].reshape(-1, 32) == 0).mean(axis=1)
    assert batches.min() > 0.1
    assert batches.max() < 0.9


@pytest.mark.parametrize(("weights", "sizes"), [([5.0, 3.0, 2.0], [211, 401, 37]), ([1.0, 9.0], [1000, 10])])
def test_each_dataset_goes_through_its_own_epochs(weights: list[float], sizes: list[int]) -> None:
    order = mixed(weights, sizes)
    positions = np.arange(10 * MIX_BLOCK)
    rows = order.rows(positions)
    datasets, local = order.places(positions)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    for number, size in enumerate(sizes):
        here = datasets == number
        assert local[here].tolist() == list(range(here.sum()))  # in its own sequence: none is passed over
        own = rows[here] - starts[number]
        epochs = own[: len(own) // size * size].reshape(-1, size)
        assert all(sorted(epoch) == list(range(size)) for epoch in epochs.tolist())
        assert all((a != b).any() for a, b in pairwise(epochs))


def test_random_access_is_sequential_access() -> None:
    order = mixed([2.0, 1.0], [50, 70], seed=3)
    whole = order.rows(np.arange(3500))
    rng = np.random.default_rng(0)
    for _ in range(20):
        some = rng.integers(0, 3500, 13)
        assert (order.rows(some) == whole[some]).all()
    assert (mixed([2.0, 1.0], [50, 70], seed=3).rows(np.arange(3500)) == whole).all()
    assert (mixed([2.0, 1.0], [50, 70], seed=4).rows(np.arange(3500)) != whole).any()


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_what_one_has(ranks: int) -> None:
    order = mixed([2.0, 1.0], [50, 70])
    for step in (0, 31, 124):
        found = [order.rows(Share(8, rank, ranks).positions(step)) for rank in range(ranks)]
        assert np.concatenate(found).tolist() == order.rows(Share(8).positions(step)).tolist()


def test_windows_of_remote_shards_stay_together() -> None:
    sizes = [60, 40, 50]
    near, far = FullShuffle(30, seed=1), WindowShuffle(sizes, seed=1, window_images=50)
    order = MixedOrder([near, far], sizes=[30, 150], shares=shares_of([1.0, 3.0]), seed=0)
    rows = order.rows(np.arange(230))
    own = rows[rows >= 30] - 30
    assert own[:150].tolist() == far.rows(np.arange(150)).tolist()
