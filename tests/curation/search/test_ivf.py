"""Inverted lists: exact where every list is visited, and candidates scored exactly in any case."""

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import ConfigError
from curation.search.exact import cosine_pairs
from curation.search.ivf import choose_index, ivf_pairs, ivf_top_k, train_index
from curation.search.ivf_config import IvfConfig
from curation.search.recall import top_k_recall
from curation.search.topk import top_k

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
    got = ivf_top_k(queries, shards(vectors, 100, 150, 150), trained, k=8)
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
    expected = cosine_pairs(vectors, vectors, threshold=0.6, same=False)
    truth = dict(zip(zip(expected.a, expected.b + 1000, strict=True), expected.score, strict=True))
    pairs = ivf_pairs(vectors, shards(vectors, 250), trained, threshold=0.6)
    found = dict(zip(zip(pairs.a, pairs.b, strict=True), pairs.score, strict=True))
    assert found.items() <= truth.items()
    assert len(found) == len(pairs.a)
    if probes == 20:
        assert len(found) >= (1 if codes == "flat" else 0.98) * len(truth)
    nearest = ivf_top_k(vectors, shards(vectors, 250), trained, k=5)
    for query, rows in enumerate(nearest.index):
        for place in np.flatnonzero(rows >= 0):
            row = rows[place] - 1000
            score = float(vectors[query].astype(np.float64) @ vectors[row].astype(np.float64))
            assert nearest.score[query, place] == score
    assert (np.diff(np.where(nearest.index >= 0, nearest.score, -2.0), axis=1) <= 0).all()


def test_recall_of_neighbours():
    vectors, queries = pool(2, 2000), pool(3, 200)
    exact = top_k(queries, shards(vectors), k=10)
    recalls = []
    for probes in (1, 4, 20):
        found = ivf_top_k(queries, shards(vectors), trained_on(vectors, num_probes=probes), k=10)
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
    got = ivf_top_k(vectors, shards(vectors), trained, k=5)
    assert (np.sort(got.index - 1000, axis=1) == np.sort(expected, axis=1)).mean() > 0.99  # but for ties


def test_limits_have_names():
    vectors = pool(5, 600)
    trained = trained_on(vectors)
    with pytest.raises(ConfigError, match="no neighbours"):
        ivf_top_k(vectors, shards(vectors), trained, k=0)
    with pytest.raises(ConfigError, match=r"neighbours.*at most 2048"):
        ivf_top_k(vectors, shards(vectors), trained, k=2049, device="gpu")
    with pytest.raises(ConfigError, match="train an index"):
        trained_on(vectors[:15])
    if not getattr(faiss, "get_num_gpus", int)():
        with pytest.raises(ConfigError, match="faiss-gpu"):
            ivf_top_k(vectors, shards(vectors), trained, k=5, device="gpu")


def test_limited_pairs_and_empty_shards():
    vectors = pool(6, 300)
    trained = trained_on(vectors)
    pairs = ivf_pairs(vectors, shards(vectors, 0), trained, threshold=0.5, max_edges_per_row=2)
    everything = ivf_pairs(vectors, shards(vectors), trained, threshold=0.5)
    assert pairs.num_dropped == len(everything.a) - len(pairs.a) > 0
    nothing = ivf_pairs(vectors[:0], [], trained, threshold=0.5)
    assert len(nothing.a) == 0


def test_one_row_one_list_and_nobody_who_asks():
    vectors = pool(7, 40)
    nobody = vectors[:0]
    trained = train_index(vectors[:1], choose_index(IvfConfig(num_lists=1), num_rows=1, dim=32), seed=0)
    found = ivf_top_k(vectors[:2], shards(vectors[:1]), trained, k=3)
    assert found.index.tolist() == [[1000, -1, -1]] * 2
    assert ivf_top_k(nobody, shards(vectors[:1]), trained, k=3).index.shape == (0, 3)
    assert (ivf_top_k(vectors[:2], shards(nobody), trained, k=3).index == -1).all()
    assert len(ivf_pairs(nobody, shards(vectors[:1]), trained, threshold=-1.0).a) == 0
    assert ivf_pairs(vectors[:1], shards(vectors[:1]), trained, threshold=0.5).b.tolist() == [1000]
