"""Measured recall: against a plain count, and its interval against simulated pools."""

import numpy as np
import pytest
from scipy.stats import binomtest

from curation.cluster.train_cells import train_cells
from curation.errors import ConfigError
from curation.search import recall
from curation.search.cells import nearest_cells
from curation.search.recall import (
    Recall,
    Truth,
    choose_probes,
    exact_truth,
    interval,
    measured_recall,
    require_recall,
    require_top_k_recall,
)

pytestmark = pytest.mark.usefixtures("arithmetic")


def pool(seed: int, num_rows: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((num_rows // 10, 24))
    rows = centres[rng.integers(len(centres), size=num_rows)] + 0.7 * rng.standard_normal((num_rows, 24))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def test_by_hand():
    # Row 0 has 3 pairs, of which 2 need one probe and 1 needs four; row 1 has 1 pair; row 2 has none.
    truth = Truth(np.array([0, 0, 1]), np.array([1, 4, 2], np.int32), np.array([2, 1, 1]))
    every = np.ones(3, bool)
    got = measured_recall(truth, rows=every, num_probes=2)
    assert (got.estimate, got.num_rows, got.num_pairs) == (0.75, 3, 4)
    assert (got.low, got.high) == interval(0.75, num_effective=1.6)
    assert measured_recall(truth, rows=np.array([False, True, True]), num_probes=1).estimate == 0
    nothing = measured_recall(truth, rows=np.array([False, False, True]), num_probes=1)
    assert nothing == Recall(None, 0.0, 1.0, 1, 0)


@pytest.mark.parametrize("found", [0, 1, 37, 99, 100])
def test_interval_is_clopper_and_pearsons(found):
    low, high = interval(found / 100, num_effective=100.0)
    expected = binomtest(found, 100).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("together", [False, True])
def test_interval_covers_the_truth(together):
    """Rows with one to nine pairs, which are lost one by one, or all of a row together."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        count = rng.integers(1, 10, 200)
        lost = (rng.random(200) < 0.03) * count if together else rng.binomial(count, 0.03)
        row = np.repeat(np.arange(200), 2)
        truth = Truth(
            row, np.tile([1, 9], 200).astype(np.int32), np.stack([count - lost, lost], axis=1).ravel()
        )
        got = measured_recall(truth, rows=np.ones(200, bool), num_probes=1)
        covered += got.low <= 0.97 <= got.high
    assert covered >= 0.94 * 300


@pytest.mark.parametrize("max_probes", [256, 3])
def test_truth_is_a_plain_count(max_probes, monkeypatch):
    monkeypatch.setattr(recall, "_SLICE_ROWS", 70)
    vectors = pool(0, 400)
    vectors[17] = vectors[3]  # equal vectors are no pair
    centroids = train_cells(vectors, 30, seed=0)
    rows = np.arange(0, 400, 16)
    rows[1] = 17
    vectors[100:120] = vectors[96]  # rows of the sample and of the pool
    truth = exact_truth(vectors[rows], vectors, centroids, threshold=0.3, max_probes=max_probes)
    order = nearest_cells(vectors, centroids, num_probes=30)
    rank = np.argsort(order, axis=1)  # of every cell
    scores = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    expected: dict[tuple[int, int], int] = {}
    for i, row in enumerate(rows):
        for other in np.flatnonzero(scores[row] >= 0.3):
            if (vectors[other] != vectors[row]).any():
                needed = 1 + min(rank[row, order[other, 0]], rank[other, order[row, 0]])
                key = (i, min(int(needed), max_probes + 1))
                expected[key] = expected.get(key, 0) + 1
    got = {(int(r), int(p)): int(c) for r, p, c in zip(truth.row, truth.probes, truth.count, strict=True)}
    assert got == expected
    assert len({p for _, p in got}) > 2


def test_chosen_probes_lose_half_of_what_they_may():
    truth = Truth(np.arange(4), np.array([1, 12, 20, 90], np.int32), np.array([900, 60, 30, 10]))
    every = np.ones(4, bool)
    assert choose_probes(truth, rows=every, min_recall=0.9, most=256) == 12
    assert choose_probes(truth, rows=every, min_recall=0.98, most=256) == 20
    assert choose_probes(truth, rows=every, min_recall=0.99, most=256) == 90
    assert choose_probes(truth, rows=every, min_recall=1.0, most=50) == 50
    assert choose_probes(truth, rows=every, min_recall=0.5, most=256) == 8
    assert choose_probes(truth, rows=~every, min_recall=0.9, most=256) == 16
    assert choose_probes(truth, rows=~every, min_recall=0.9, most=5) == 5


def test_refuses_too_little():
    got = Recall(0.97, 0.95, 0.98, 100, 700)
    require_recall(got, min_recall=0.97, num_probes=8, num_cells=64)
    require_recall(Recall(None, 0.0, 1.0, 100, 0), min_recall=1.0, num_probes=8, num_cells=64)
    with pytest.raises(ConfigError, match=r"recall 0.9700 with 8 probes of 64.*at least 0.98.*num_probes"):
        require_recall(got, min_recall=0.98, num_probes=8, num_cells=64)


def test_counts_have_their_words():
    one = Recall(0.5, 0.0, 1.0, 1, 1)
    with pytest.raises(ConfigError, match=r"with 1 probe of 1 cell \(.*, 1 pair of 1 row\)"):
        require_recall(one, min_recall=0.9, num_probes=1, num_cells=1)
    with pytest.raises(ConfigError, match=r"with 1 probe \(.*, 1 neighbour of 1 query\)"):
        require_top_k_recall(one, min_recall=0.9, index="flat", num_probes=1)
    with pytest.raises(ConfigError, match=r"with 2 probes \(.*, 3 neighbours of 2 queries\)"):
        require_top_k_recall(Recall(0.5, 0.0, 1.0, 2, 3), min_recall=0.9, index="flat", num_probes=2)


@pytest.mark.parametrize(("num_sampled", "num_rows"), [(0, 0), (0, 9), (3, 0), (1, 1), (3, 9)])
def test_nothing_is_near(num_sampled, num_rows):
    vectors = np.eye(12, dtype=np.float16)
    centroids = vectors[:2]
    truth = exact_truth(vectors[:num_sampled], vectors[3 : 3 + num_rows], centroids, threshold=0.5)
    assert len(truth.row) == len(truth.probes) == len(truth.count) == 0
    assert measured_recall(truth, rows=np.ones(num_sampled, bool), num_probes=1).estimate is None
