"""Copies among vectors in one call, and the scores of pairs."""

import numpy as np

from curation.dedup.components import components
from curation.dedup.cosines import copies_among, cosine_scores


def drawn(seed: int, num_rows: int) -> np.ndarray:
    """Unit rows around a few centres; some equal, some zeros."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((9, 16))[rng.integers(9, size=num_rows)]
    rows += 0.3 * rng.standard_normal((num_rows, 16))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    rows[rng.integers(num_rows, size=20)] = rows[3]
    rows[rng.integers(num_rows, size=5)] = 0
    return rows


def test_by_hand() -> None:
    vectors = np.array([[1, 0], [0, 0], [0.8, 0.6], [0, 1], [1, 0], [0, 0]], np.float16)
    assert copies_among(vectors, threshold=0.9).tolist() == [0, 1, 2, 3, 0, 5]
    assert copies_among(vectors, threshold=0.75).tolist() == [0, 1, 0, 3, 0, 5]  # 0.8 to the first
    assert copies_among(vectors, threshold=0.5).tolist() == [0, 1, 0, 0, 0, 5]  # and 0.6 to the fourth
    assert copies_among(vectors[:0], threshold=0.5).tolist() == []


def test_they_are_the_components_of_all_pairs() -> None:
    vectors = drawn(0, 200)
    exact = vectors.astype(np.float64)
    a, b = np.nonzero(np.triu(exact @ exact.T >= 0.85, 1))
    labels = copies_among(vectors, threshold=0.85)
    assert labels.tolist() == components(200, a, b).tolist()
    assert 9 < len(set(labels.tolist())) < 200


def test_scores() -> None:
    vectors = drawn(1, 50)
    left, right = vectors[:-1], vectors[1:]
    scores = cosine_scores(left, right)
    has = left.any(axis=1) & right.any(axis=1)
    assert (scores[~has] == -np.inf).all()
    equal = (left == right).all(axis=1) & has
    assert (scores[equal] == 1).all()
    expected = (left.astype(np.float64) * right.astype(np.float64)).sum(axis=1)
    np.testing.assert_allclose(scores[has & ~equal], expected[has & ~equal], atol=1e-12)
