"""Nearest neighbours against a full sort of an fp64 product, ties included."""

import numpy as np
import pytest
import torch
from arithmetic import forced
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import ConfigError
from curation.search import topk
from curation.search.topk import top_k


def unit_vectors(rng: np.random.Generator, num_rows: int, *, dim: int) -> np.ndarray:
    rows = rng.standard_normal((num_rows, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def reference(
    queries: np.ndarray, vectors: np.ndarray, *, k: int, rank: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    index, score = np.full((len(queries), k), -1), np.full((len(queries), k), -np.inf)
    for query in np.flatnonzero(queries.any(axis=1)):
        order = np.lexsort((rank, -scores[query]))
        order = order[vectors[order].any(axis=1)][:k]
        index[query, : len(order)], score[query, : len(order)] = order, scores[query, order]
    return index, score


def blocks_of(vectors: np.ndarray, *, size: int, rows: np.ndarray | None = None):
    rows = np.arange(len(vectors)) if rows is None else rows
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        yield part, vectors[part]


def test_by_hand():
    queries = np.array([[1, 0], [0, 0]], np.float16)
    vectors = np.array([[0, 1], [1, 0], [0, 0], [1, 0], [-1, 0]], np.float16)
    best = top_k(queries, [(np.arange(5), vectors)], k=2, tie_rank=np.array([0, 4, 1, 3, 2]))
    assert best.index.tolist() == [[3, 1], [-1, -1]]
    assert best.score.tolist() == [[1.0, 1.0], [-np.inf, -np.inf]]
    assert top_k(queries, [(np.arange(5), vectors)], k=9).index[0].tolist() == [
        1,
        3,
        0,
        4,
        -1,
        -1,
        -1,
        -1,
        -1,
    ]
    assert top_k(queries, [], k=1).index.tolist() == [[-1], [-1]]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.sampled_from([1, 3, 10, 200]),
    size=st.integers(1, 160),
    num_distinct=st.sampled_from([3, 40, 150]),
    dtype=st.sampled_from(["int8", "fp32", "fp16", "bf16", None]),
)
def test_equals_a_full_sort(seed, k, size, num_distinct, dtype):
    rng = np.random.default_rng(seed)
    vectors = unit_vectors(rng, num_distinct, dim=24)[rng.integers(num_distinct, size=150)]
    vectors[rng.integers(150, size=5)] = 0
    queries = np.concatenate([unit_vectors(rng, 6, dim=24), vectors[:6]])
    rank = rng.permutation(150)
    rows = rng.permutation(150)  # the order in which rows stream by changes nothing
    with forced(dtype):
        best = top_k(queries, blocks_of(vectors, size=size, rows=rows), k=k, tie_rank=rank, dtype=dtype)
    index, score = reference(queries, vectors, k=k, rank=rank)
    np.testing.assert_array_equal(best.index, index)
    np.testing.assert_array_equal(best.score, score)


@pytest.mark.parametrize("dtype", ["int8", "fp32", "fp16", "bf16"])
def test_tiles_of_queries_and_rows(monkeypatch, dtype):
    monkeypatch.setattr(topk, "_TILE_QUERIES", 16)
    monkeypatch.setattr(topk, "_TILE_ROWS", 64)
    monkeypatch.setattr(topk, "_MAX_PROPOSED", 40)
    rng = np.random.default_rng(0)
    vectors, queries = unit_vectors(rng, 1000, dim=384), unit_vectors(rng, 50, dim=384)
    with forced(dtype):
        best = top_k(queries, blocks_of(vectors, size=230), k=8, dtype=dtype)
    index, score = reference(queries, vectors, k=8, rank=np.arange(1000))
    np.testing.assert_array_equal(best.index, index)
    np.testing.assert_array_equal(best.score, score)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("dim", [1, 2, 9])
@pytest.mark.parametrize(("num_queries", "num_rows"), [(0, 0), (0, 5), (3, 0), (1, 1), (1, 5), (3, 1)])
def test_few_queries_rows_and_columns(num_queries, num_rows, dim):
    rng = np.random.default_rng(1)
    vectors, queries = unit_vectors(rng, num_rows, dim=dim), unit_vectors(rng, num_queries, dim=dim)
    blocks = [(np.zeros(0, np.int64), vectors[:0]), *blocks_of(vectors, size=2)]
    best = top_k(queries, blocks, k=2)
    index, score = reference(queries, vectors, k=2, rank=np.arange(num_rows))
    np.testing.assert_array_equal(best.index, index)
    np.testing.assert_array_equal(best.score, score)


def test_refuses_nonsense():
    queries = np.eye(2, dtype=np.float16)
    with pytest.raises(ConfigError, match="k=0"):
        top_k(queries, [], k=0)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="No GPU to search on"):
            top_k(queries, [], k=1, device="cuda")
