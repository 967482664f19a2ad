"""What the parts of a pool give, put together, is what the whole gives."""

import numpy as np

from curation.search.topk import TopK, merge_top_k, top_k


def test_merge_by_hand() -> None:
    left = TopK(np.array([[4, 0], [1, -1]]), np.array([[0.9, 0.5], [0.3, -np.inf]]))
    right = TopK(np.array([[7, 5], [-1, -1]]), np.array([[0.9, 0.6], [-np.inf, -np.inf]]))
    rank = np.array([0, 1, 2, 3, 9, 5, 6, 2])  # row 7 goes before row 4 among equal scores
    found = merge_top_k([left, right], tie_rank=rank)
    assert found.index.tolist() == [[7, 4], [1, -1]]
    assert found.score.tolist() == [[0.9, 0.9], [0.3, -np.inf]]


def test_any_cut_of_the_pool_gives_the_same() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((200, 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    vectors[150:] = vectors[:50]  # equal scores everywhere
    queries, rows = vectors[20:60], np.arange(200)
    rank = rng.permutation(200)
    whole = top_k(queries, [(rows, vectors)], k=7, tie_rank=rank)
    for cuts in ([100], [3, 5, 170]):
        pieces = [top_k(queries, [(r, vectors[r])], k=7, tie_rank=rank) for r in np.split(rows, cuts)]
        merged = merge_top_k(pieces, tie_rank=rank)
        np.testing.assert_array_equal(merged.index, whole.index)
        np.testing.assert_array_equal(merged.score, whole.score)
