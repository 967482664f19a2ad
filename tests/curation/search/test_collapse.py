"""Equal rows are collapsed: stars instead of squares, and the components of all pairs."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup.components import components
from curation.search import binary
from curation.search.collapse import collapsed_pairs, equal_codes, equal_vectors
from curation.search.edges import Pairs
from curation.search.exact import cosine_pairs


def unit(rows: list[list[float]]) -> np.ndarray:
    vectors = np.array(rows, np.float64)
    length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return (vectors / length).astype(np.float16)


def join(a: np.ndarray, b: np.ndarray, *, threshold: float, same: bool, every_a: bool = False) -> Pairs:
    search = partial(cosine_pairs, threshold=threshold, same=same, dtype="fp32")
    return collapsed_pairs(a, b, same=same, every_a=every_a, search=search)


def triples(pairs: Pairs) -> list[tuple[int, int, float]]:
    return list(zip(pairs.a.tolist(), pairs.b.tolist(), np.round(pairs.score, 3).tolist(), strict=True))


X, Y, Z, NONE = [1, 0, 0], [0.8, 0.6, 0], [0, 0, 1], [0, 0, 0]


def test_by_hand():
    rows = unit([X, Y, NONE, X, Z, X, NONE, Y])
    pairs = join(rows, rows, threshold=0.7, same=True)
    # Rows without a vector are equal to each other and yet no copies.
    assert triples(pairs) == [(0, 1, 0.8), (0, 3, 1), (0, 5, 1), (1, 7, 1)]
    assert pairs.largest_group == 3


def test_two_sides_by_hand():
    a, b = unit([X, X, Y, NONE]), unit([NONE, Y, X, Y])
    assert triples(join(a, b, threshold=0.7, same=False)) == [(0, 1, 0.8), (0, 2, 1), (2, 1, 1), (2, 2, 0.8)]
    assert triples(join(a, b, threshold=0.7, same=False, every_a=True)) == [
        (0, 1, 0.8), (0, 2, 1), (1, 1, 0.8), (1, 2, 1), (2, 1, 1), (2, 2, 0.8),
    ]  # fmt: skip


def test_equal_vectors_score_1_whatever_their_rounding():
    row = unit([[1, 1, 1]])
    assert float((row.astype(np.float64) ** 2).sum()) < 1
    for same, other in ((True, row), (False, row.copy())):
        a = np.concatenate([row, row]) if same else row
        pairs = join(a, a if same else other, threshold=1.0, same=same)
        assert pairs.score.tolist() == [1.0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=30), st.integers(0, 2**32 - 1), st.integers(1, 29))
def test_components_are_those_of_all_pairs(picks, seed, cut):
    rng = np.random.default_rng(seed)
    kinds = unit(rng.standard_normal((13, 3)).tolist())
    kinds[0] = 0
    rows, cut = kinds[picks], min(cut, len(picks))
    scores = rows.astype(np.float64) @ rows.astype(np.float64).T
    i, j = np.nonzero(np.triu((scores >= 0.9), 1))
    expected = components(len(rows), i, j).tolist()
    whole = join(rows, rows, threshold=0.9, same=True)
    assert components(len(rows), whole.a, whole.b).tolist() == expected
    left, right = rows[:cut], rows[cut:]
    blocks = [(left, left, 0, 0), (right, right, cut, cut), (left, right, 0, cut)]
    found = [(join(v, w, threshold=0.9, same=v is w), x, y) for v, w, x, y in blocks if len(v) and len(w)]
    a = np.concatenate([pairs.a + x for pairs, x, _ in found])
    b = np.concatenate([pairs.b + y for pairs, _, y in found])
    assert components(len(rows), a, b).tolist() == expected


def test_equal_rows_cost_nothing():
    """200,000 rows of one placeholder among others: a star, in seconds; all pairs would be 20 billion."""
    rng = np.random.default_rng(0)
    others = unit(rng.standard_normal((500, 64)).tolist())
    rows = np.concatenate([others, np.repeat(others[:1], 200_000, axis=0)])
    pairs = join(rows, rows, threshold=0.9, same=True)
    assert len(pairs.a) == 200_000
    assert pairs.largest_group == 200_001
    assert len(join(rows, rows[:1000].copy(), threshold=0.9, same=False).a) == 500


def test_equal_hashes_cost_nothing():
    codes = np.random.default_rng(0).integers(2**64, size=500, dtype=np.uint64)
    rows = np.concatenate([codes, np.repeat(codes[:1], 200_000)])
    pairs = binary.hamming_pairs(rows, rows, radius=6, same=True)
    assert len(pairs.a) == 200_000
    assert pairs.largest_group == 200_001


def test_groups():
    groups = equal_codes(np.array([7, 3, 7, 3, 9], np.uint64))
    assert groups.first[groups.group].tolist() == [0, 1, 0, 1, 4]
    rows, sizes = groups.expand(groups.group[[1, 4]])
    assert (rows.tolist(), sizes.tolist()) == ([1, 3, 4], [2, 1])
    assert equal_vectors(np.zeros((0, 4), np.float16)).largest == 0


@pytest.mark.parametrize("dim", [1, 3, 384])
def test_vectors_are_equal_bit_for_bit(dim):
    vectors = np.random.default_rng(dim).standard_normal((50, dim)).astype(np.float16)
    changed = vectors.copy()
    changed[::2, -1] *= -1
    groups = equal_vectors(np.concatenate([vectors, changed]))
    assert (groups.first[groups.group[50:]] < 50).tolist() == [False, True] * 25
