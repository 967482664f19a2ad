"""One query's nearest rows: a case by hand, the search for many queries, and any cut into blocks."""

import numpy as np
import pytest

from curation.describe.embed import unit_rows
from curation.search.nearest import Nearest, candidates, no_rows, take_best
from curation.search.topk import top_k


def drawn(num_rows: int, dim: int = 24, seed: int = 0) -> np.ndarray:
    vectors = unit_rows(np.random.default_rng(seed).standard_normal((num_rows, dim)).astype(np.float32))
    vectors[::7] = vectors[1]  # many that are equal
    vectors[::11] = 0  # and some that have none
    return vectors


def search(query: np.ndarray, vectors: np.ndarray, ids: np.ndarray, *, k: int, cut: int) -> Nearest:
    best = no_rows()
    for start in range(0, len(vectors), cut):
        floor = float(best.score[-1]) if len(best.score) == k else -np.inf
        near = candidates(query, vectors[start : start + cut], k=k, floor=floor)
        rows = near.index + start
        best = take_best(best, Nearest(rows, near.score, ids[rows]), k=k)
    return best


def test_three_rows_by_hand() -> None:
    vectors = np.array([[1, 0], [0, 0], [0.6, 0.8], [0, 1]], np.float16)
    near = candidates(np.array([1, 0], np.float16), vectors, k=2)
    assert near.index.tolist() == [0, 2]
    assert near.score[0] == 1
    assert near.score[1] == np.float64(np.float16(0.6))
    # The floor leaves out what cannot be among the best any more; a row of zeros is never found.
    assert candidates(np.array([1, 0], np.float16), vectors, k=4, floor=0.7).index.tolist() == [0]
    assert candidates(np.array([1, 0], np.float16), vectors, k=4).index.tolist() == [0, 2, 3]


@pytest.mark.parametrize("cut", [1, 13, 100, 500])
def test_it_finds_what_the_search_for_many_finds(cut: int) -> None:
    vectors = drawn(500)
    rank = np.random.default_rng(1).permutation(500)
    ids = np.stack([rank.astype(np.uint64), np.zeros(500, np.uint64)], axis=1)
    queries = vectors[[1, 3, 5]]
    found = top_k(queries, [(np.arange(500), vectors)], k=12, tie_rank=rank)
    for query, row, score in zip(queries, found.index, found.score, strict=True):
        best = search(query, vectors, ids, k=12, cut=cut)
        assert best.row.tolist() == row.tolist()
        assert best.score.tolist() == score.tolist()
