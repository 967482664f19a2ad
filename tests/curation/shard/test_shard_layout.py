"""Shuffle keys, buckets and cuts: by hand, against plain Python, and as properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curation.shard import layout
from curation.shard.layout import ShardConfig
from curation.tar_headers import tar_bytes

_MASK = 2**64 - 1


def _splitmix64(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


def _ids(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 16), dtype=np.uint8)


def test_splitmix64_gives_the_published_sequence() -> None:
    # The first outputs of the reference generator seeded with 0: states 0, γ, 2γ, …
    states = np.array([0, 0x9E3779B97F4A7C15, 0x3C6EF372FE94F82A], dtype=np.uint64)
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert layout.splitmix64(states).tolist() == expected


@pytest.mark.parametrize("seed", [0, 7, -1, 2**64 + 7])
def test_shuffle_key_equals_plain_python(seed: int) -> None:
    ids = _ids(50)
    expected = [
        _splitmix64(
            _splitmix64(int.from_bytes(i[:8].tobytes(), "little") ^ _splitmix64(seed & _MASK))
            ^ int.from_bytes(i[8:].tobytes(), "little")
        )
        for i in ids
    ]
    assert layout.shuffle_key(seed, ids).tolist() == expected


def test_shuffle_order_is_of_the_images_and_not_of_their_rows() -> None:
    ids = _ids(1000)
    rows = np.random.default_rng(1).permutation(1000)
    shuffled = ids[layout.shuffle_order(3, ids)]
    np.testing.assert_array_equal(shuffled, ids[rows][layout.shuffle_order(3, ids[rows])])
    assert not np.array_equal(shuffled, ids[layout.shuffle_order(4, ids)])
    # Ids that differ in their last bits alone, as no SHA-256 does, are scattered all the same.
    near = np.zeros((1000, 16), dtype=np.uint8)
    near[:, 14:] = np.arange(1000, dtype=">u2").view(np.uint8).reshape(-1, 2)
    order = layout.shuffle_order(0, near)
    assert sorted(order) == list(range(1000))
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.1


def test_plan_buckets_by_hand() -> None:
    assert layout.plan_buckets([4, 1, 9], [10, 0, 20], seed=0, bucket_bytes=30) == [(4, 9)]
    assert layout.plan_buckets([], [], seed=0, bucket_bytes=30) == []
    assert sorted(layout.plan_buckets([4, 9], [50, 20], seed=0, bucket_bytes=30)) == [(4,), (9,)]
    with pytest.raises(ValueError, match="shorter"):
        layout.plan_buckets([1, 2], [1], seed=0, bucket_bytes=1)


@settings(deadline=None)
@given(st.lists(st.integers(0, 100), max_size=60), st.integers(1, 200), st.integers(0, 5))
def test_every_part_is_in_one_bucket_that_fits(sizes: list[int], limit: int, seed: int) -> None:
    parts = [3 * number for number in range(len(sizes))]
    buckets = layout.plan_buckets(parts, sizes, seed=seed, bucket_bytes=limit)
    size = dict(zip(parts, sizes, strict=True))
    assert sorted(part for bucket in buckets for part in bucket) == [p for p in parts if size[p]]
    for bucket in buckets:
        assert list(bucket) == sorted(bucket)
        assert len(bucket) == 1 or sum(size[part] for part in bucket) <= limit
    # A part's place depends on the parts and the seed, not on the order in which they are named.
    assert buckets == layout.plan_buckets(parts[::-1], sizes[::-1], seed=seed, bucket_bytes=limit)


def test_cut_shards_by_hand() -> None:
    # A tar of two records holds 20,480 - 1,024 bytes of samples.
    config = ShardConfig(max_samples=3, max_bytes=25_000)
    sizes = np.array([9728, 9728, 512, 512, 512, 512, 50_000, 512], dtype=np.int64)
    assert layout.cut_shards(sizes, config) == [(0, 2), (2, 5), (5, 6), (6, 7), (7, 8)]
    assert layout.cut_shards(np.array([], dtype=np.int64), config) == []


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), max_size=80), st.integers(1, 9), st.integers(20_480, 60_000))
def test_cuts_cover_all_and_keep_the_limits(blocks: list[int], most: int, limit: int) -> None:
    sizes = np.array(blocks, dtype=np.int64) * 1024
    config = ShardConfig(max_samples=most, max_bytes=limit)
    cuts = layout.cut_shards(sizes, config)
    assert [row for start, stop in cuts for row in range(start, stop)] == list(range(len(sizes)))
    for start, stop in cuts:
        assert 1 <= stop - start <= most
        assert stop - start == 1 or tar_bytes(int(sizes[start:stop].sum())) <= limit
        if stop - start < most and stop < len(sizes):  # closed by size: one more would not have fitted
            assert tar_bytes(int(sizes[start : stop + 1].sum())) > limit


def test_typical_samples_lead() -> None:
    # Kind 1 is commonest. Of its samples 2, 3, 5, 6, 7, 8, number 6 knows both fields and 3 the third.
    kinds = np.array([0, 0, 1, 1, 0, 1, 1, 1, 1], dtype=np.int64)
    known = np.zeros((9, 3), dtype=np.bool_)
    known[6, :2] = known[5, 0] = known[3, 2] = True
    order = layout.lead_with_typical(kinds, known)
    assert order.tolist() == [6, 3, 2, 5, 7, 0, 1, 4, 8]
    one = np.zeros(1, dtype=np.int64)
    assert layout.lead_with_typical(one, np.zeros((1, 0), dtype=np.bool_)).tolist() == [0]


def test_names_and_limits() -> None:
    assert layout.shard_name("lvd", 12) == "lvd-000012.tar"
    with pytest.raises(ValidationError, match="max_bytes"):
        ShardConfig(max_bytes=1000)
