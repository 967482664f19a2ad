"""Votes of neighbours against a plain loop, and ranks of spectra that are known."""

import math

import numpy as np
import pytest
import torch

from pretrain.evaluate import knn
from pretrain.evaluate.knn import knn_accuracy, rank_me


def test_a_vote_by_hand() -> None:
    train = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 2.0]])
    labels = torch.tensor([0, 1, 1])
    test = torch.tensor([[3.0, 0.0]])
    found = knn_accuracy(train, labels, test, torch.tensor([0]), neighbours=[1, 2, 3], temperature=0.02)
    # Weighted that sharply only the nearest one counts; with a large temperature two outvote one.
    assert found == {1: 1.0, 2: 1.0, 3: 1.0}
    blunt = knn_accuracy(train, labels, test, torch.tensor([0]), neighbours=[1, 3], temperature=100.0)
    assert blunt == {1: 1.0, 3: 0.0}


@pytest.mark.parametrize("rows", [1, 7, 1024])
def test_a_plain_loop(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "_ROWS", rows)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 8))
    labels, wanted = rng.integers(0, 5, 90), rng.integers(0, 5, 40)
    train, test = (centres[x] + 0.9 * rng.normal(size=(len(x), 8)) for x in (labels, wanted))
    hits = dict.fromkeys((1, 3, 20, 200), 0)
    for vector, label in zip(test, wanted, strict=True):
        cosines = [float(v @ vector / np.linalg.norm(v) / np.linalg.norm(vector)) for v in train]
        order = sorted(range(90), key=lambda i: -cosines[i])
        for k in hits:
            votes = [0.0] * 5
            for i in order[:k]:
                votes[labels[i]] += math.exp(cosines[i] / 0.07)
            hits[k] += int(np.argmax(votes)) == label
    got = knn_accuracy(
        *(torch.from_numpy(x) for x in (train, labels, test, wanted)),
        neighbours=tuple(hits),
        temperature=0.07,
    )
    assert got == {k: hit / 40 for k, hit in hits.items()}
    assert 0.2 < got[20] < 1


def test_the_length_of_a_feature_does_not_matter() -> None:
    rng = torch.Generator().manual_seed(0)
    train, test = torch.randn(30, 4, generator=rng), torch.randn(10, 4, generator=rng)
    labels, wanted = torch.arange(30) % 3, torch.arange(10) % 3
    a = knn_accuracy(train, labels, test, wanted, neighbours=[5])
    b = knn_accuracy(train * torch.rand(30, 1, generator=rng) * 9, labels, 7 * test, wanted, neighbours=[5])
    assert a == b


@pytest.mark.parametrize("rank", [1, 2, 5, 16])
def test_equal_singular_values(rank: int) -> None:
    rng = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(40, rank, generator=rng)).Q
    right = torch.linalg.qr(torch.randn(16, rank, generator=rng)).Q
    assert rank_me(3 * left @ right.T) == pytest.approx(rank, rel=1e-3)


def test_a_known_spectrum() -> None:
    values = torch.tensor([4.0, 2.0, 1.0, 1.0])
    shares = values / 8
    expected = math.exp(-sum(float(p) * math.log(p) for p in shares))
    assert rank_me(torch.diag(values)) == pytest.approx(expected, rel=1e-3)


def test_a_collapse() -> None:
    same = torch.randn(1, 16).expand(50, 16)
    assert rank_me(same) == pytest.approx(1, abs=0.01)
    assert rank_me(torch.zeros(5, 3)) < 1.1
