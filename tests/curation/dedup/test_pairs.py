"""Equal codes, the order of survivors, and the config."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from curation.dedup.pairs import DedupConfig, collapse_equal, survivor_order


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


def test_survivor_order_by_hand():
    curated = np.array([False, True, False, False, False, False, False])
    area = np.array([900, 100, 900, 900, 900, 400, 900])
    num_bytes = np.array([10, 10, 20, 20, 20, 99, 20])
    ids = np.array([[0, 0], [9, 9], [2, 0], [1, 5], [1, 4], [0, 0], [1, 4]], np.uint64)
    rank = survivor_order(is_curated=curated, area_px=area, num_bytes=num_bytes, image_id=ids)
    # curated; then of 900 px and 20 bytes by id and row (4, 6, 3, 2); then fewer bytes; then less area
    assert np.argsort(rank).tolist() == [1, 4, 6, 3, 2, 0, 5]


def test_survivor_order_takes_ids_as_unsigned():
    ids = np.array([[1 << 63, 0], [1, 0]], np.uint64)
    same = np.array([5, 5])
    rank = survivor_order(is_curated=np.zeros(2, bool), area_px=same, num_bytes=same, image_id=ids)
    assert rank.tolist() == [1, 0]


def test_config():
    assert DedupConfig().phash_radius == 6
    assert DedupConfig().saved_from is None
    assert DedupConfig(cosine_threshold=0.9).saved_from == 0.9
    assert DedupConfig(cosine_threshold=0.9, edge_floor=0.8).saved_from == 0.8
    for wrong, message in (
        ({"cosine_threshold": 0.8, "edge_floor": 0.9}, "above cosine_threshold"),
        ({"edge_floor": 0.9}, "without cosine_threshold"),
        ({"cosine_threshold": 1.2}, "less than or equal to 1"),
        ({"phash_radius": 40}, "less than or equal to 32"),
        ({"radius": 4}, "Extra inputs"),
        ({"backend": "numpy"}, "torch"),
    ):
        with pytest.raises(ValidationError, match=message):
            DedupConfig.model_validate(wrong)
