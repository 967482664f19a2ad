"""In which order the images are seen: a seeded permutation for each epoch, computed and never stored.

A position counts the images that a training has seen, over all ranks and epochs. Its row of the data set
follows from the position and the seed alone, so a resumed training, on however many ranks, goes on with
exactly the images that come next, and the position is all that a checkpoint needs.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, UInt64

NUM_ROUNDS = 6
# Positions in which a mixture has exactly its shares: weights of three decimals come out exact.
MIX_BLOCK = 1_000
_MIX_SEED = 4  # tells the seeds of a mixture from those of other draws


def permuted(index: Int64[np.ndarray, "m"], *, size: int, seed: Sequence[int]) -> Int64[np.ndarray, "m"]:
    """Where a pseudo-random permutation of 0 … size − 1 takes each index.

    A Feistel network over the next even number of bits, walked on until the value is below `size`: a
    bijection for any size, in constant memory (a stored permutation of a billion rows takes 8 GB a process).

    Args:
        index: 0 … size − 1.
        size: of the permutation.
        seed: numbers that select it.

    Source: Black, Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, §3 and §5.
    """
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    keys = np.random.Generator(np.random.Philox(np.random.SeedSequence(list(seed)))).integers(
        0, 1 << 64, size=(NUM_ROUNDS, 2), dtype=np.uint64
    )
    values = _feistel(index.astype(np.uint64), half, keys)
    while (outside := values >= size).any():  # at most three in four, so a few rounds
        values[outside] = _feistel(values[outside], half, keys)
    return values.astype(np.int64)


def _feistel(
    values: UInt64[np.ndarray, "m"], half: np.uint64, keys: UInt64[np.ndarray, "rounds 2"]
) -> UInt64[np.ndarray, "m"]:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for add, multiply in keys:
        mixed = (right + add) * (multiply | np.uint64(1))
        mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
        left, right = right, left ^ ((mixed >> np.uint64(32)) & mask)
    return (left << half) | right


@runtime_checkable
class Order(Protocol):
    """Which row of the data set stands at a position."""

    def rows(self, positions: Int64[np.ndarray, "m"]) -> Int64[np.ndarray, "m"]:
        """The row at each position; every row once in each epoch."""
        ...


class FullShuffle:
    """A permutation of all rows, another one each epoch: for shards with cheap random access."""

    def __init__(self, num_images: int, *, seed: int) -> None:
        self.num_images = num_images
        self._seed = seed

    def rows(self, positions: Int64[np.ndarray, "m"]) -> Int64[np.ndarray, "m"]:
        """The row at each position."""
        return _epoch_by_epoch(positions, self.num_images, self._rows_of_epoch)

    def _rows_of_epoch(self, epoch: int, index: Int64[np.ndarray, "m"]) -> Int64[np.ndarray, "m"]:
        return permuted(index, size=self.num_images, seed=(self._seed, epoch))


class WindowShuffle:
    """Shards in random order, and a permutation within every window of a few: for remote shards.

    Only the shards of one window are read at a time, so each shard is fetched once an epoch.

    Args:
        shard_sizes: images in each shard, none of them empty.
        seed: of the shuffle.
        window_images: a window is closed as soon as it has so many.
    """

    def __init__(self, shard_sizes: Sequence[int], *, seed: int, window_images: int) -> None:
        self._sizes = np.asarray(shard_sizes, dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)[:-1]])
        self.num_images = int(self._sizes.sum())
        self._seed = seed
        self._window_images = window_images

    def rows(self, positions: Int64[np.ndarray, "m"]) -> Int64[np.ndarray, "m"]:
        """The row at each position."""
        return _epoch_by_epoch(positions, self.num_images, self._rows_of_epoch)

    def _rows_of_epoch(self, epoch: int, index: Int64[np.ndarray, "m"]) -> Int64[np.ndarray, "m"]:
        num_shards = len(self._sizes)
        shards = permuted(np.arange(num_shards), size=num_shards, seed=(self._seed, epoch, 0))
        ends = np.cumsum(self._sizes[shards])
        window_ends = _close_windows(ends, self._window_images)
        rows = np.empty_like(index)
        windows = np.searchsorted(window_ends, index, side="right")
        for window in np.unique(windows):
            here = windows == window
            start = int(window_ends[window - 1]) if window else 0
            size = int(window_ends[window]) - start
            place = start + permuted(index[here] - start, size=size, seed=(self._seed, epoch, 1, int(window)))
            shard = np.searchsorted(ends, place, side="right")
            within = place - (ends[shard] - self._sizes[shards[shard]])
            rows[here] = self._starts[shards[shard]] + within
        return rows


class MixedOrder:
    """Several orders by weight: in every block of 1,000 positions each has exactly its share, by lot.

    An order with n positions in a block has come to its own position b · n where block b begins, and goes on
    through the block in its own sequence. So where a position leads follows from its number alone.

    Args:
        orders: of each dataset, over its own rows.
        sizes: images of each dataset; its rows follow those of the datasets before it.
        shares: positions of each in a block (`shares_of`).
        seed: of which positions they are.
    """

    def __init__(
        self, orders: Sequence[Order], *, sizes: Sequence[int], shares: Sequence[int], seed: int
    ) -> None:
        assert sum(shares) == MIX_BLOCK
        self._orders, self._seed = tuple(orders), seed
        self._shares = np.asarray(shares, dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(sizes)])

    def rows(self, positions: Int64[np.ndarray, "m"]) -> Int64[np.ndarray, "m"]:
        """The row at each position, counted through all datasets."""
        datasets, local = self.places(positions)
        rows = np.empty_like(positions)
        for number, order in enumerate(self._orders):
            here = np.flatnonzero(datasets == number)
            if len(here):
                rows[here] = self._starts[number] + order.rows(local[here])
        return rows

    def places(
        self, positions: Int64[np.ndarray, "m"]
    ) -> tuple[Int64[np.ndarray, "m"], Int64[np.ndarray, "m"]]:
        """The dataset that stands at each position, and the position within that dataset's own order."""
        blocks, index = np.divmod(positions, MIX_BLOCK)
        datasets, local = np.empty_like(positions), np.empty_like(positions)
        for block in np.unique(blocks):
            here = np.flatnonzero(blocks == block)
            drawn, before = self._block(int(block))
            datasets[here] = drawn[index[here]]
            local[here] = block * self._shares[datasets[here]] + before[index[here]]
        return datasets, local

    def _block(self, block: int) -> tuple[Int64[np.ndarray, "size"], Int64[np.ndarray, "size"]]:
        """The dataset at each position of a block, and how many positions of it come before."""
        lots = permuted(np.arange(MIX_BLOCK), size=MIX_BLOCK, seed=(self._seed, _MIX_SEED, block))
        drawn = np.searchsorted(np.cumsum(self._shares), lots, side="right")
        before = np.empty_like(drawn)
        for number, share in enumerate(self._shares):
            before[drawn == number] = np.arange(share)
        return drawn, before


def shares_of(weights: Sequence[float]) -> list[int]:
    """How many of 1,000 positions each weight gets: the largest remainders get what rounding down leaves.

    Source: Hamilton's method; of equal remainders the first comes first.
    """
    exact = [Fraction(weight) for weight in weights]  # no rounding decides a tie
    quotas = [weight * MIX_BLOCK / sum(exact) for weight in exact]
    shares = [int(quota) for quota in quotas]
    by_rest = sorted(range(len(quotas)), key=lambda number: (shares[number] - quotas[number], number))
    for number in by_rest[: MIX_BLOCK - sum(shares)]:
        shares[number] += 1
    return shares


def _epoch_by_epoch(
    positions: Int64[np.ndarray, "m"],
    num_images: int,
    rows_of_epoch: Callable[[int, np.ndarray], np.ndarray],
) -> Int64[np.ndarray, "m"]:
    """The row at each position, by a function of an epoch and the places within it."""
    epochs, index = np.divmod(positions, num_images)
    rows = np.empty_like(positions)
    for epoch in np.unique(epochs):
        here = np.flatnonzero(epochs == epoch)
        rows[here] = rows_of_epoch(int(epoch), index[here])
    return rows


def _close_windows(ends: Int64[np.ndarray, "n"], window_images: int) -> Int64[np.ndarray, "w"]:
    """The cumulative counts at which windows end: the first shard end that fills each."""
    closed: list[int] = []
    while not closed or closed[-1] < ends[-1]:
        filled = (closed[-1] if closed else 0) + window_images
        closed.append(int(ends[min(int(np.searchsorted(ends, filled)), len(ends) - 1)]))
    return np.array(closed, dtype=np.int64)
