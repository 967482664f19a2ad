"""How alike two images are directly, by hand."""

import numpy as np

from curation.dedup.cosines import cosine_scores
from curation.dedup.likeness import compare, hash_scores

THRESHOLDS = {"phash": 1 - 8 / 64, "cosine": 0.8}


def test_scores_by_hand():
    is_exact = np.array([True, False, False, False])
    rows = np.array([0, 0b1111, 0xFF, 1], np.uint64)
    representatives = np.zeros(4, np.uint64)
    left = np.array([[1, 0], [1, 0], [0.6, 0.8], [0, 0]], np.float16)
    right = np.array([[0, 1], [1, 0], [0, 1], [1, 0]], np.float16)
    hashes, cosines = hash_scores(rows, representatives), cosine_scores(left, right)
    assert hashes.tolist() == [1, 1 - 4 / 64, 1 - 8 / 64, 1 - 1 / 64]
    assert cosines.tolist() == [0, 1, float(np.float16(0.8)), -np.inf]
    found = compare({"phash": hashes, "cosine": cosines}, is_exact=is_exact, thresholds=THRESHOLDS)
    assert found.score.tolist() == [1, 1, 1 - 8 / 64, 1 - 1 / 64]
    # Equal vectors are alike without bound; otherwise the best share of a threshold counts.
    assert found.likeness.tolist() == [np.inf, np.inf, 1.0, (63 / 64) / (56 / 64)]
    alone = compare({"cosine": cosines}, is_exact=is_exact, thresholds=THRESHOLDS)
    assert alone.score.tolist() == [1, 1, float(np.float16(0.8)), 0]
    assert alone.likeness[3] == 0


def test_equal_vectors_score_1_whatever_their_rounding():
    row = np.full((1, 3), 1 / np.sqrt(3), np.float16)
    assert cosine_scores(row, row.copy()).tolist() == [1.0]


def test_rows_without_a_hash_and_opposite_vectors():
    zeros = np.zeros(2, np.uint64)
    assert hash_scores(zeros, zeros, has=np.array([True, False])).tolist() == [1, -np.inf]
    left, right = np.array([[1, 0]], np.float16), np.array([[-1, 0]], np.float16)
    found = compare({"cosine": cosine_scores(left, right)}, is_exact=np.array([False]), thresholds=THRESHOLDS)
    assert (found.score.tolist(), found.likeness.tolist()) == ([-1], [-1.25])


def test_nothing_to_compare():
    found = compare({}, is_exact=np.array([True, False]), thresholds={})
    assert (found.score.tolist(), found.likeness.tolist()) == ([1, 0], [np.inf, 0])
