"""Balanced sampling: so many images, spread as evenly over a hierarchy of clusters as their sizes allow.

The budget flows from the top of the hierarchy down. The clusters of the top level share it like water poured
into vessels that are joined: all fill to one level, and a cluster with fewer images than that is full. Each
cluster then shares what it got among the clusters below it in the same way, down to the leaves, which give
images at random or those nearest to their centroid.

The level is a whole number. What is left over below the next one, less than one image for each cluster that
is not full, goes to some of those, drawn by lot. So every budget is met exactly.

Source: arXiv:2405.15613, §3, hierarchical sampling.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from curation.runs import place_in_run

Order = Literal["random", "closest"]


@dataclass(frozen=True)
class Candidates:
    """Images that may be sampled, in any order."""

    leaf: Int32[np.ndarray, "m"]
    score: Float32[np.ndarray, "m"]  # inner product with the leaf's centroid
    id_rank: Int64[np.ndarray, "m"]  # place of the image id in the order of ids


def balanced_sample(
    candidates: Candidates,
    parents: Sequence[Int32[np.ndarray, "_"]],
    *,
    budget: int,
    order: Order,
    seed: int,
) -> Bool[np.ndarray, "m"]:
    """Choose `budget` images, balanced over the hierarchy.

    Args:
        candidates: the images, each in a leaf.
        parents: the cluster above each leaf, then above each of those, and so on; none: leaves alone.
        budget: images to choose; all are chosen where there are no more.
        order: which images a leaf gives: `random` ones, or the `closest` to its centroid, ties by image id.
        seed: of the remainders and of the random images.

    Returns:
        Which candidates are chosen: exactly min(budget, m) of them. An image's luck hangs on its leaf and on
        the place of its id alone, so the order of the candidates does not matter.
    """
    quota = leaf_quotas(candidates.leaf, parents, budget=budget, seed=seed)
    by_id = np.argsort(candidates.id_rank, kind="stable")
    match order:
        case "random":
            first = by_id[np.argsort(np.random.default_rng((seed, 1)).random(len(by_id)), kind="stable")]
        case "closest":
            first = by_id[np.argsort(-candidates.score[by_id], kind="stable")]
    ranked = first[np.argsort(candidates.leaf[first], kind="stable")]
    leaf = candidates.leaf[ranked]
    chosen = np.zeros(len(leaf), bool)
    chosen[ranked] = place_in_run(leaf) < quota[leaf]
    return chosen


def leaf_quotas(
    leaf: Int32[np.ndarray, "m"],
    parents: Sequence[Int32[np.ndarray, "_"]],
    *,
    budget: int,
    seed: int,
) -> Int64[np.ndarray, "k"]:
    """How many images each leaf gives.

    Args:
        leaf: of every candidate.
        parents: as for `balanced_sample`.
        budget: images in all.
        seed: of the remainders.

    Returns:
        A number for each leaf, at most its size; their sum is the smaller of `budget` and the candidates.
    """
    num_leaves = len(parents[0]) if parents else 1 + int(leaf.max(initial=-1))
    sizes = [np.bincount(leaf, minlength=num_leaves)]
    for level, parent in enumerate(parents, 1):
        # The last clusters of a level may be empty: the level above it tells how many there are.
        num_above = len(parents[level]) if level < len(parents) else 1 + int(parent.max(initial=-1))
        sizes.append(np.bincount(parent, sizes[-1], minlength=num_above).astype(np.int64))
    above = [*parents, np.zeros(len(sizes[-1]), np.int32)]  # the top level's clusters lie under one root
    quota = np.array([budget])
    for level in reversed(range(len(sizes))):
        luck = np.random.default_rng((seed, 0, level)).random(len(sizes[level]))
        quota = share_out(quota, sizes[level], above[level], luck=luck)
    return quota


def share_out(
    budgets: Int64[np.ndarray, "p"],
    sizes: Int64[np.ndarray, "c"],
    parent: Int32[np.ndarray, "c"],
    *,
    luck: Float64[np.ndarray, "c"],
) -> Int64[np.ndarray, "c"]:
    """Share the budget of each parent among its children by water-filling.

    A parent's children get min(size, L) each, with the largest whole L that its budget allows; what is left
    goes one by one to its children larger than L, those with the least luck first.

    Args:
        budgets: images that each parent gives.
        sizes: images that each child has.
        parent: of each child.
        luck: a number for each child, drawn by lot.

    Returns:
        Images that each child gives, at most its size; over the children of a parent they add up to the
        smaller of its budget and its size.
    """
    # Weighted counts are sums in fp64: exact, since no pool has 2^53 images.
    low, high = np.zeros_like(budgets), np.zeros_like(budgets)
    np.maximum.at(high, parent, sizes)
    while (low < high).any():
        middle = (low + high + 1) // 2
        fits = np.bincount(parent, np.minimum(sizes, middle[parent]), minlength=len(budgets)) <= budgets
        low, high = np.where(fits, middle, low), np.where(fits, high, middle - 1)
    shares: np.ndarray = np.minimum(sizes, low[parent])
    left = budgets - np.bincount(parent, shares, minlength=len(budgets)).astype(np.int64)
    fuller = np.flatnonzero(sizes > shares)
    fuller = fuller[np.lexsort((luck[fuller], parent[fuller]))]
    shares[fuller[place_in_run(parent[fuller]) < left[parent[fuller]]]] += 1
    return shares
