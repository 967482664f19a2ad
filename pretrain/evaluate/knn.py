"""Weighted k-nearest-neighbour classification on frozen features."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

_ROWS = 1024  # of the test set at once: with a million training images 4 GB of fp32 scores


@torch.no_grad()
def knn_accuracy(
    train: Float[Tensor, "n dim"],
    train_labels: Int64[Tensor, "n"],
    test: Float[Tensor, "m dim"],
    test_labels: Int64[Tensor, "m"],
    *,
    neighbours: Sequence[int],
    temperature: float = 0.07,
) -> dict[int, float]:
    """Top-1 accuracy of a vote of the nearest training images, each with the weight exp(cosine / T).

    Args:
        train, test: features; they are brought to unit length, in fp32.
        train_labels, test_labels: classes from 0.
        neighbours: numbers of neighbours (k); one above n is taken as n.
        temperature: T.

    Returns:
        Accuracy for each k, 0 … 1.

    Source: arXiv:1805.01978, §3.4; arXiv:2304.07193, §7.1 (k = 20, T = 0.07).
    """
    unit_train, unit_test = (nn.functional.normalize(x.float(), dim=1) for x in (train, test))
    largest = min(max(neighbours), len(train))
    num_classes = int(max(train_labels.max(), test_labels.max())) + 1
    hits = dict.fromkeys(neighbours, 0)
    for rows, wanted in zip(unit_test.split(_ROWS), test_labels.split(_ROWS), strict=True):
        scores, nearest = (rows @ unit_train.T).topk(largest, dim=1)
        votes = (
            nn.functional.one_hot(train_labels[nearest], num_classes)
            * (scores / temperature).exp()[..., None]
        )
        for k in neighbours:
            hits[k] += int((votes[:, :k].sum(dim=1).argmax(dim=1) == wanted).sum())
    return {k: hit / len(test) for k, hit in hits.items()}


@torch.no_grad()
def rank_me(features: Float[Tensor, "n dim"]) -> float:
    """The effective rank of a set of features: exp of the entropy of their singular values.

    Between 1 (every image has the same direction: collapse) and the smaller of n and dim.

    Source: arXiv:2210.02885, eq. 1–2.
    """
    values = torch.linalg.svdvals(features.float())
    shares = values / values.sum().clamp(min=1e-12) + 1e-7
    return float((-(shares * shares.log()).sum()).exp())
