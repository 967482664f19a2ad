"""Orders are permutations, differ by seed and epoch, and need nothing but a position."""

from itertools import pairwise

import numpy as np
import pytest

from pretrain.data.order import FullShuffle, Order, WindowShuffle, permuted

SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65, 1000, 4096, 4097]


@pytest.mark.parametrize("size", SIZES)
def test_every_index_has_one_place(size: int) -> None:
    for seed in range(4):
        assert sorted(permuted(np.arange(size), size=size, seed=(seed,))) == list(range(size))


def test_an_index_goes_where_it_goes_among_others() -> None:
    whole = permuted(np.arange(1000), size=1000, seed=(7, 3))
    some = np.array([999, 0, 17, 17])
    assert (permuted(some, size=1000, seed=(7, 3)) == whole[some]).all()


def test_a_billion_rows_need_no_memory() -> None:
    size = 1_000_000_007
    index = np.arange(0, size, size // 1000)
    places = permuted(index, size=size, seed=(0,))
    assert len(set(places.tolist())) == len(index)
    assert places.min() >= 0
    assert places.max() < size


@pytest.mark.parametrize("size", [10, 37])
def test_places_are_uniform(size: int) -> None:
    num = 1500
    counts = np.zeros((size, size))
    for seed in range(num):
        counts[np.arange(size), permuted(np.arange(size), size=size, seed=(seed, 1))] += 1
    expected = num / size
    chi2 = ((counts - expected) ** 2 / expected).sum(axis=1)
    free = size - 1
    # One row's χ² has mean `free` and variance 2 · free; the rows' mean must be near it, and none far off.
    assert abs(chi2.mean() - free) < 4 * np.sqrt(2 * free / size)
    assert chi2.max() < free + 6 * np.sqrt(2 * free)


def test_neighbours_are_parted() -> None:
    places = permuted(np.arange(5000), size=5000, seed=(2,))
    assert abs(np.corrcoef(places[:-1], places[1:])[0, 1]) < 0.06
    assert (np.abs(np.diff(places)) == 1).sum() < 10


ORDERS = [
    lambda seed: FullShuffle(101, seed=seed),
    lambda seed: WindowShuffle([10, 1, 30, 25, 5, 30], seed=seed, window_images=20),
    lambda seed: WindowShuffle([10, 1, 30, 25, 5, 30], seed=seed, window_images=1),
    lambda seed: WindowShuffle([101], seed=seed, window_images=1000),
]


@pytest.mark.parametrize("make", ORDERS)
def test_each_epoch_has_every_row_once(make) -> None:
    order = make(3)
    assert isinstance(order, Order)
    epochs = [order.rows(np.arange(e * 101, (e + 1) * 101)) for e in range(4)]
    assert all(sorted(rows) == list(range(101)) for rows in epochs)
    assert all((a != b).any() for a, b in pairwise(epochs))
    assert (make(4).rows(np.arange(101)) != epochs[0]).any()
    assert (make(3).rows(np.arange(101)) == epochs[0]).all()


@pytest.mark.parametrize("make", ORDERS)
@pytest.mark.parametrize("batch", [1, 8, 64, 250])
def test_batches_over_the_end_of_an_epoch_drop_nothing(make, batch: int) -> None:
    order = make(0)
    num = -(-303 // batch) * batch
    rows = np.concatenate([order.rows(np.arange(s, s + batch)) for s in range(0, num, batch)])
    assert (rows == order.rows(np.arange(num))).all()
    assert all(sorted(rows[e * 101 : (e + 1) * 101]) == list(range(101)) for e in range(3))


@pytest.mark.parametrize("make", ORDERS)
def test_random_access_is_sequential_access(make) -> None:
    order = make(5)
    whole = order.rows(np.arange(350))
    rng = np.random.default_rng(0)
    for _ in range(20):
        some = rng.integers(0, 350, 13)
        assert (order.rows(some) == whole[some]).all()


def test_few_shards_are_open_at_a_time() -> None:
    sizes = np.random.default_rng(0).integers(5, 60, 200)
    window = 150
    order = WindowShuffle(sizes.tolist(), seed=1, window_images=window)
    shard_of = np.repeat(np.arange(200), sizes)
    shards = shard_of[order.rows(np.arange(sizes.sum()))]
    # A window has at most window / smallest + 1 shards, and in practice about window / mean; a stretch of its
    # length touches two windows.
    for start in range(0, len(shards) - window, 37):
        assert len(set(shards[start : start + window])) <= 2 * (window // 5 + 1)
    stretches = [len(set(shards[s : s + window])) for s in range(0, len(shards) - window, 37)]
    assert np.mean(stretches) < 15
    first = {int(s): int(np.flatnonzero(shards == s)[0]) for s in set(shards.tolist())}
    last = {int(s): int(np.flatnonzero(shards == s)[-1]) for s in first}
    assert max(last[s] - first[s] for s in first) < window + 60  # each is fetched once
    assert sorted(first, key=first.__getitem__) != list(range(200))
    inside = shards[: window // 2]
    assert (np.diff(inside) != 0).mean() > 0.5  # shuffled among one another


def test_windows_by_hand() -> None:
    # Windows close at the first shard's end that fills them: {2, 3}, {4}, {1}, each a run of whole shards.
    order = WindowShuffle([2, 3, 4, 1], seed=0, window_images=4)
    rows = order.rows(np.arange(10))
    shard_of = np.repeat([0, 1, 2, 3], [2, 3, 4, 1])
    seen: list[set[int]] = []
    left, current = set(), set()
    remaining = {0: 2, 1: 3, 2: 4, 3: 1}
    for number, row in enumerate(rows):
        shard = int(shard_of[row])
        current.add(shard)
        remaining[shard] -= 1
        if all(remaining[s] == 0 for s in current):
            done = sum([2, 3, 4, 1][s] for s in current)
            if done >= 4 or number == 9:
                seen.append(current)
                left |= current
                current = set()
    assert left == {0, 1, 2, 3}
    assert sum(map(len, seen)) == 4
