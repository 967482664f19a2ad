"""Equal codes."""

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curation.dedup.components import collapse_equal


def sha256_words(contents: list[bytes]) -> np.ndarray:
    digests = b"".join(hashlib.sha256(content).digest() for content in contents)
    return np.frombuffer(digests, np.uint64).reshape(-1, 4)


def test_collapse_by_hand():
    codes = sha256_words([b"x", b"y", b"x", b"z", b"y", b"x"])
    rank = np.array([5, 1, 2, 3, 4, 0])
    assert collapse_equal(codes, rank).tolist() == [5, 1, 5, 3, 1, 5]
    assert collapse_equal(codes[:0], rank[:0]).tolist() == []


def test_codes_that_end_in_zeros_differ():
    codes = np.zeros((3, 4), np.uint64)
    codes[1, 3] = 1 << 56  # the last byte alone
    assert collapse_equal(codes, np.arange(3)).tolist() == [0, 1, 0]


@given(st.lists(st.integers(0, 5), max_size=30), st.randoms(use_true_random=False))
def test_collapse_equals_a_dictionary(contents, random):
    rank = list(range(len(contents)))
    random.shuffle(rank)
    best: dict[int, int] = {}
    for row in sorted(range(len(contents)), key=lambda row: rank[row]):
        best.setdefault(contents[row], row)
    codes = sha256_words([bytes([content]) for content in contents])
    got = collapse_equal(codes, np.array(rank, np.int64))
    assert got.tolist() == [best[content] for content in contents]
