"""The Hamming join against a NumPy popcount of every pair."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from curation.errors import ConfigError
from curation.search import installed
from curation.search.binary import hamming_pairs


def near_codes(rng: np.random.Generator, num_rows: int, *, max_flips: int) -> np.ndarray:
    """Codes around a few centres; with no flips, many are equal."""
    centres = rng.integers(2**64, size=max(num_rows // 6, 1), dtype=np.uint64)
    codes = centres[rng.integers(len(centres), size=num_rows)]
    for _ in range(max_flips):
        flip = np.left_shift(np.uint64(1), rng.integers(64, size=num_rows).astype(np.uint64))
        codes = np.where(rng.random(num_rows) < 0.5, codes ^ flip, codes)
    return codes


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.bitwise_count(a[:, None] ^ b[None, :]).astype(np.int64)


def labels(num_rows: int, a: np.ndarray, b: np.ndarray) -> list[int]:
    graph = coo_array((np.ones(len(a)), (a, b)), shape=(num_rows, num_rows))
    number = connected_components(graph, directed=False)[1]
    return np.unique(number, return_index=True)[1][np.unique(number, return_inverse=True)[1]].tolist()


def test_by_hand():
    codes = np.array([0b1111, 0b0111, 0b1111, 0b0000, 1 << 63], np.uint64)
    pairs = hamming_pairs(codes, codes, radius=3, same=True)
    # Row 2 equals row 0 and is linked to it alone; a distance equal to the radius counts.
    assert list(zip(pairs.a, pairs.b, pairs.score, strict=True)) == [
        (0, 1, 1 - 1 / 64),
        (0, 2, 1.0),
        (1, 3, 1 - 3 / 64),
        (3, 4, 1 - 1 / 64),
    ]


@pytest.mark.parametrize("radius", [0, 1, 6, 20])
def test_distinct_codes_give_every_pair(radius, monkeypatch):
    monkeypatch.setattr(installed, "_TILE_ROWS", 32)
    monkeypatch.setattr(installed, "_TILE_COLUMNS", 80)
    rng = np.random.default_rng(radius)
    a, b = (np.unique(near_codes(rng, 250, max_flips=8)) for _ in range(2))
    rng.shuffle(a)
    b = np.concatenate([b, np.setdiff1d(a[:40], b)])
    rng.shuffle(b)
    for same, other in ((True, a), (False, b)):
        expected = distances(a, other)
        near = expected <= radius
        i, j = np.nonzero(np.triu(near, 1) if same else near)
        got = hamming_pairs(a, other, radius=radius, same=same)
        np.testing.assert_array_equal(got.a, i)
        np.testing.assert_array_equal(got.b, j)
        np.testing.assert_array_equal(got.score, 1 - expected[i, j] / 64)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    radius=st.integers(0, 12),
    max_flips=st.integers(0, 6),
    cuts=st.lists(st.integers(0, 80), max_size=3),
)
def test_union_of_blocks_spans_the_components_of_all_pairs(seed, radius, max_flips, cuts):
    codes = near_codes(np.random.default_rng(seed), 80, max_flips=max_flips)
    starts = [0, *sorted(cuts)]
    ends = [*starts[1:], 80]
    a, b = [], []
    for left in range(len(starts)):
        for right in range(left, len(starts)):
            blocks = codes[starts[left] : ends[left]], codes[starts[right] : ends[right]]
            pairs = hamming_pairs(*blocks, radius=radius, same=left == right)
            a.append(pairs.a + starts[left])
            b.append(pairs.b + starts[right])
    i, j = np.nonzero(np.triu(distances(codes, codes) <= radius, 1))
    whole = hamming_pairs(codes, codes, radius=radius, same=True)
    expected = labels(80, i, j)
    assert labels(80, np.concatenate(a), np.concatenate(b)) == expected
    assert labels(80, whole.a, whole.b) == expected
    assert set(zip(whole.a, whole.b, strict=True)) <= set(zip(i, j, strict=True))
    if len(np.unique(codes)) == 80:
        union = sorted(zip(np.concatenate(a), np.concatenate(b), strict=True))
        assert union == list(zip(whole.a, whole.b, strict=True))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), radius=st.integers(0, 12), max_flips=st.integers(0, 6))
def test_every_a_gives_each_row_its_own_verdict(seed, radius, max_flips):
    rng = np.random.default_rng(seed)
    codes = near_codes(rng, 90, max_flips=max_flips)
    pool, holdout = codes[:60], codes[60:]
    pairs = hamming_pairs(pool, holdout, radius=radius, same=False, every_a=True)
    _, first = np.unique(holdout, return_index=True)
    near = distances(pool, holdout) <= radius
    near[:, np.setdiff1d(np.arange(30), first)] = False
    i, j = np.nonzero(near)
    np.testing.assert_array_equal(pairs.a, i)
    np.testing.assert_array_equal(pairs.b, j)


def test_a_placeholder_costs_a_star():
    codes = np.zeros(200_000, np.uint64)
    codes[7] = 1
    pairs = hamming_pairs(codes, codes, radius=6, same=True)
    assert len(pairs.a) == 199_999
    assert (pairs.a == 0).all()
    assert pairs.score[6] == 1 - 1 / 64


def test_edges_are_limited():
    codes = np.concatenate([[np.uint64(0)], np.left_shift(np.uint64(1), np.arange(64, dtype=np.uint64))])
    pairs = hamming_pairs(codes, codes, radius=2, same=True, max_edges_per_row=1)
    assert pairs.num_hub_rows == 65
    # Every row names row 0, at distance 1.
    assert list(zip(pairs.a, pairs.b, strict=True)) == [(0, j) for j in range(1, 65)]
    assert pairs.num_dropped == 64 * 63 // 2


def test_nothing_to_compare_and_nonsense():
    none = np.zeros(0, np.uint64)
    assert len(hamming_pairs(none, none, radius=6, same=True).a) == 0
    assert len(hamming_pairs(none, np.ones(3, np.uint64), radius=6, same=False, every_a=True).a) == 0
    with pytest.raises(ConfigError, match="radius"):
        hamming_pairs(none, none, radius=65, same=True)
    with pytest.raises(ConfigError, match="every_a"):
        hamming_pairs(none, none, radius=6, same=True, every_a=True)
