import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from curation.retrieve import (
    ClusterRetrieval,
    PoolMembers,
    Retrieval,
    SampleRetrieval,
    retrieval_counts,
    retrieve_by_cluster,
    retrieve_by_sample,
)
from curation.schema import HITS


def members(cluster, score, *, row=None, id_rank=None) -> PoolMembers:
    every = np.arange(len(cluster))
    return PoolMembers(
        row=every if row is None else np.array(row),
        cluster=np.array(cluster, np.int32),
        score=np.array(score, np.float32),
        id_rank=every if id_rank is None else np.array(id_rank),
    )


def test_sample_hits_by_hand():
    hits = retrieve_by_sample(
        np.array([7, 9]), np.array([[3, 1], [3, -1]]), score=np.array([[0.9, 0.5], [0.7, -np.inf]])
    )
    assert hits.schema == HITS
    assert hits.to_pylist() == [
        {"row": 3, "query": 7, "score": 0.9, "rank": 0, "method": "sample"},
        {"row": 1, "query": 7, "score": 0.5, "rank": 1, "method": "sample"},
        {"row": 3, "query": 9, "score": 0.7, "rank": 0, "method": "sample"},
    ]
    counts = retrieval_counts(hits)
    assert (counts.nominal, counts.unique) == (3, 2)


def test_more_than_three_seeds_open_a_cluster():
    seeds = members([0] * 3 + [1] * 4, [0.5] * 7, row=range(100, 107))
    pool = members([0, 1, 2, 1, 0], [0.9, 0.8, 0.7, 0.85, 0.6])
    hits = retrieve_by_cluster(seeds, pool, config=ClusterRetrieval(), seed=0)
    assert hits.schema == HITS
    assert hits["row"].to_pylist() == [3, 1]
    assert hits["rank"].to_pylist() == [0, 1]
    assert hits["score"].to_pylist() == pytest.approx([0.85, 0.8])


def test_the_cause_is_the_seed_closest_to_the_centroid():
    seeds = members([1, 1, 1, 0], [0.5, 0.9, 0.9, 1.0], row=[10, 11, 12, 13], id_rank=[0, 5, 2, 1])
    pool = members([1, 0], [0.1, 0.2])
    hits = retrieve_by_cluster(seeds, pool, config=ClusterRetrieval(min_seed_hits=1), seed=0)
    assert dict(zip(hits["row"].to_pylist(), hits["query"].to_pylist(), strict=True)) == {0: 12, 1: 13}


def test_quota_takes_the_closest_and_breaks_ties_by_id():
    seeds = members([0] * 4, [1.0] * 4)
    pool = members([0] * 5, [0.5, 0.9, 0.5, 0.5, 0.1], id_rank=[3, 4, 1, 2, 0])
    config = ClusterRetrieval(per_cluster=3)
    assert retrieve_by_cluster(seeds, pool, config=config, seed=0)["row"].to_pylist() == [1, 2, 3]


def test_cap_is_spread_over_clusters():
    seeds = members([0] * 4 + [1] * 5 + [2] * 4, [1.0] * 13)
    pool = members([0] * 3 + [1] * 3 + [2] * 1, [0.9, 0.8, 0.7, 0.3, 0.2, 0.1, 0.5])
    hits = retrieve_by_cluster(seeds, pool, config=ClusterRetrieval(cap=4), seed=0)
    # One of each first; the second round begins with the cluster that has most seeds.
    assert hits["row"].to_pylist() == [0, 3, 4, 6]


def naive_by_cluster(
    seeds: PoolMembers, pool: PoolMembers, config: ClusterRetrieval
) -> list[tuple[int, int]]:
    taken = []
    for cluster in sorted(set(seeds.cluster.tolist())):
        if (seeds.cluster == cluster).sum() < config.min_seed_hits:
            continue
        inside = [i for i in range(len(pool.row)) if pool.cluster[i] == cluster]
        inside.sort(key=lambda i: (-pool.score[i], pool.id_rank[i], pool.row[i]))
        taken += [(int(pool.row[i]), rank) for rank, i in enumerate(inside[: config.per_cluster])]
    return taken


@pytest.mark.parametrize("trial", range(5))
def test_matches_a_plain_loop_in_any_order_of_the_pool(trial):
    rng = np.random.default_rng(trial)
    seeds = members(rng.integers(12, size=40), rng.random(40), row=range(1000, 1040))
    row = rng.permutation(400)
    pool = members(
        rng.integers(12, size=400), rng.integers(20, size=400) / 20, row=row, id_rank=row[::-1].copy()
    )
    config = ClusterRetrieval(per_cluster=10, min_seed_hits=3)
    hits = retrieve_by_cluster(seeds, pool, config=config, seed=0)
    assert list(zip(hits["row"].to_pylist(), hits["rank"].to_pylist(), strict=True)) == naive_by_cluster(
        seeds, pool, config
    )
    order = rng.permutation(400)
    shuffled = PoolMembers(pool.row[order], pool.cluster[order], pool.score[order], pool.id_rank[order])
    for config_ in (config, ClusterRetrieval(per_cluster=10, order="random")):
        assert retrieve_by_cluster(seeds, pool, config=config_, seed=1).equals(
            retrieve_by_cluster(seeds, shuffled, config=config_, seed=1)
        )


def test_random_order_is_seeded():
    seeds = members([0] * 4, [1.0] * 4)
    pool = members([0] * 200, np.linspace(1, 0, 200))
    config = ClusterRetrieval(per_cluster=20, order="random")
    one, again, other = (retrieve_by_cluster(seeds, pool, config=config, seed=s) for s in (1, 1, 2))
    assert one.equals(again)
    assert not one.equals(other)
    assert max(one["row"].to_pylist()) > 100


def test_nothing_to_retrieve():
    nobody, pool = members([], []), members([0, 1], [0.5, 0.5])
    for seeds, candidates in ((nobody, pool), (members([3] * 4, [1.0] * 4), pool), (nobody, nobody)):
        hits = retrieve_by_cluster(seeds, candidates, config=ClusterRetrieval(), seed=0)
        assert hits.num_rows == 0
        assert hits.schema == HITS
    assert retrieval_counts(hits).unique == 0


def test_the_method_decides_the_config():
    adapter = TypeAdapter(Retrieval)
    assert adapter.validate_python({"method": "sample", "neighbours": 32}) == SampleRetrieval(neighbours=32)
    assert isinstance(adapter.validate_python({"method": "cluster"}), ClusterRetrieval)
    with pytest.raises(ValidationError, match="neighbours"):
        adapter.validate_python({"method": "cluster", "neighbours": 4})
