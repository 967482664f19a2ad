"""Inverted lists: exact where every list is visited, and candidates scored exactly in any case."""

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import ConfigError
from curation.search.ivf import IvfShard, TrainedIvf, check_limits, choose_index, train_index
from curation.search.ivf_config import IvfConfig
from curation.search.recall import top_k_recall
from curation.search.topk import TopK, merge_top_k, top_k

pytestmark = pytest.mark.usefixtures("arithmetic")


def pool(seed: int, num_rows: int, *, dim: int = 32) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((num_rows // 20, dim))
    rows = centres[rng.integers(len(centres), size=num_rows)] + 0.7 * rng.standard_normal((num_rows, dim))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    rows[11] = 0
    return rows


def shards(vectors: np.ndarray, *cuts: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rows = np.arange(len(vectors)) + 1000
    return [(r, vectors[r - 1000]) for r in np.split(rows, cuts)]


def trained_on(vectors: np.ndarray, **settings: object):
    config = IvfConfig.model_validate({"num_lists": 20, "num_probes": 20, "pq_bytes": 8, **settings})
    spec = choose_index(config, num_rows=len(vectors), dim=vectors.shape[1])
    return train_index(vectors[vectors.any(axis=1)], spec, seed=0)


def nearest(
    queries: np.ndarray, parts: list[tuple[np.ndarray, np.ndarray]], trained: TrainedIvf, *, k: int
) -> TopK:
    """The best of what each shard finds."""
    return merge_top_k([IvfShard(rows, own, trained).nearest(queries, k=k) for rows, own in parts])


def test_index_by_hand():
    config = IvfConfig(memory_bytes=1 << 30, shard_rows=10**6, pq_bytes=48)

    def chosen(num_rows: int, **changed: object) -> str:
        return choose_index(config.model_copy(update=changed), num_rows=num_rows, dim=384).factory()

    assert chosen(10**6) == "IVF4000,SQfp16"  # 776 MB
    assert chosen(2 * 10**6, shard_rows=2 * 10**6) == "IVF5657,SQ8"  # 784 MB; flat would take 1.55 GB
    assert chosen(10**7, shard_rows=10**7) == "IVF12649,PQ48np"  # 560 MB
    assert chosen(10**7, shard_rows=10**7, codes="flat") == "IVF12649,SQfp16"  # named, so it is taken
    assert chosen(100) == "IVF12,SQfp16"
    with pytest.raises(ConfigError, match="shard_rows"):
        chosen(10**8, shard_rows=10**8)
    with pytest.raises(ConfigError, match="a divisor of 384"):
        chosen(10, codes="pq", pq_bytes=50)


@pytest.mark.parametrize("codes", ["flat", "sq8", "pq"])
def test_every_list_visited_is_exact(codes):
    vectors = pool(0, 600)
    queries = pool(1, 40)
    trained = trained_on(vectors, codes=codes, refine=75)
    got = nearest(queries, shards(vectors, 100, 150, 150), trained, k=8)
    expected = top_k(queries, shards(vectors), k=8)
    np.testing.assert_array_equal(got.index, expected.index)
    np.testing.assert_array_equal(got.score, expected.score)
    assert (got.index[11] == -1).all()


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), codes=st.sampled_from(["flat", "sq8", "pq"]), probes=st.integers(1, 20)
)
def test_what_is_found_is_scored_exactly(seed, codes, probes):
    vectors = pool(seed, 500)
    trained = trained_on(vectors, codes=codes, num_probes=probes)
    found = nearest(vectors, shards(vectors, 250), trained, k=5)
    for query, rows in enumerate(found.index):
        for place in np.flatnonzero(rows >= 0):
            row = rows[place] - 1000
            score = float(vectors[query].astype(np.float64) @ vectors[row].astype(np.float64))
            assert found.score[query, place] == score
    assert (np.diff(np.where(found.index >= 0, found.score, -2.0), axis=1) <= 0).all()


def test_recall_of_neighbours():
    vectors, queries = pool(2, 2000), pool(3, 200)
    exact = top_k(queries, shards(vectors), k=10)
    recalls = []
    for probes in (1, 4, 20):
        found = nearest(queries, shards(vectors), trained_on(vectors, num_probes=probes), k=10)
        recall = top_k_recall(found.score, exact.score)
        hits = [len(set(f[f >= 0]) & set(e[e >= 0])) for f, e in zip(found.index, exact.index, strict=True)]
        assert recall.estimate == sum(hits) / 1990  # one query has no vector
        assert recall.low <= recall.estimate <= recall.high
        recalls.append(recall.estimate)
    assert recalls[0] < recalls[1] <= recalls[2] == 1.0


def test_flat_lists_find_what_faiss_finds():
    vectors = pool(4, 800)
    vectors = vectors[vectors.any(axis=1)]
    trained = trained_on(vectors, num_probes=3)
    index = faiss.deserialize_index(trained.index)
    index.add(vectors.astype(np.float32))
    index.nprobe = 3
    _, expected = index.search(vectors.astype(np.float32), 5)
    got = nearest(vectors, shards(vectors), trained, k=5)
    assert (np.sort(got.index - 1000, axis=1) == np.sort(expected, axis=1)).mean() > 0.99  # but for ties


def test_limits_have_names():
    vectors = pool(5, 600)
    trained, rows = trained_on(vectors), np.arange(len(vectors))
    with pytest.raises(ConfigError, match="no neighbours"):
        IvfShard(rows, vectors, trained).nearest(vectors, k=0)
    with pytest.raises(ConfigError, match=r"neighbours.*at most 2048"):
        check_limits(trained.spec, k=2049, device="gpu")
    with pytest.raises(ConfigError, match="train an index"):
        trained_on(vectors[:15])
    if not getattr(faiss, "get_num_gpus", int)():
        with pytest.raises(ConfigError, match="faiss-gpu"):
            IvfShard(rows, vectors, trained, device="gpu")


def test_one_row_one_list_and_nobody_who_asks():
    vectors = pool(7, 40)
    nobody = vectors[:0]
    trained = train_index(vectors[:1], choose_index(IvfConfig(num_lists=1), num_rows=1, dim=32), seed=0)
    found = nearest(vectors[:2], shards(vectors[:1]), trained, k=3)
    assert found.index.tolist() == [[1000, -1, -1]] * 2
    assert nearest(nobody, shards(vectors[:1]), trained, k=3).index.shape == (0, 3)
    assert (nearest(vectors[:2], shards(nobody), trained, k=3).index == -1).all()
