"""The scores of pairs."""

import numpy as np

from curation.dedup.cosines import cosine_scores


def drawn(seed: int, num_rows: int) -> np.ndarray:
    """Unit rows around a few centres; some equal, some zeros."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((9, 16))[rng.integers(9, size=num_rows)]
    rows += 0.3 * rng.standard_normal((num_rows, 16))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    rows[rng.integers(num_rows, size=20)] = rows[3]
    rows[rng.integers(num_rows, size=5)] = 0
    return rows


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
