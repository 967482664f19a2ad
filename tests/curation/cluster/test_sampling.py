from itertools import pairwise

import numpy as np
import pytest

from curation.cluster.sampling import Candidates, balanced_sample, leaf_quotas, share_out


def draw_tree(rng: np.random.Generator, *widths: int) -> list[np.ndarray]:
    """Parents from the leaves up: `widths` are the numbers of clusters of each level, leaves first."""
    return [rng.integers(above, size=below).astype(np.int32) for below, above in pairwise(widths)]


def draw_candidates(rng: np.random.Generator, num_rows: int, num_leaves: int) -> Candidates:
    """A few leaves have most of the images."""
    share = np.arange(1, num_leaves + 1.0) ** -1.5
    leaf = rng.choice(num_leaves, num_rows, p=share / share.sum()).astype(np.int32)
    return Candidates(leaf, rng.random(num_rows, np.float32), rng.permutation(num_rows))


def pour(sizes: list[int], budget: int) -> tuple[int, list[int]]:
    """Water-filling one image at a time: full rounds over all children that have more, then what is left."""
    shares = [0] * len(sizes)
    while True:
        open_ = [child for child, size in enumerate(sizes) if shares[child] < size]
        if not open_ or len(open_) > budget:
            return budget if open_ else 0, shares
        for child in open_:
            shares[child] += 1
        budget -= len(open_)


def test_a_budget_by_hand():
    # 10 among 1, 2, 9 and 9: one and two are full, 7 are left for two; 3 each, and one by lot.
    sizes, parent = np.array([1, 2, 9, 9]), np.zeros(4, np.int32)
    for luck, expected in (([0, 0, 0.1, 0.2], [1, 2, 4, 3]), ([0, 0, 0.2, 0.1], [1, 2, 3, 4])):
        shares = share_out(np.array([10]), sizes, parent, luck=np.array(luck, float))
        assert shares.tolist() == expected


def test_two_levels_by_hand():
    # Leaves of 8, 2 | 3 | 1 images below three clusters. Of 9 images 4, 3 and 1 are poured; the ninth goes to
    # the first, since the others are full, and its 5 are shared out as 3 and 2.
    leaf = np.repeat(np.arange(4), [8, 2, 3, 1]).astype(np.int32)
    parents = [np.array([0, 0, 1, 2], np.int32)]
    for seed in range(3):
        assert leaf_quotas(leaf, parents, budget=9, seed=seed).tolist() == [3, 2, 3, 1]


@pytest.mark.parametrize("trial", range(20))
def test_water_filling_matches_pouring_image_by_image(trial):
    rng = np.random.default_rng(trial)
    num_parents = 6
    sizes = rng.integers(0, 30, size=40) * (rng.random(40) < 0.8)
    parent = rng.integers(num_parents, size=40).astype(np.int32)
    budgets = rng.integers(0, 250, size=num_parents)
    shares = share_out(budgets, sizes, parent, luck=rng.random(40))
    for one in range(num_parents):
        mine = parent == one
        left, expected = pour(sizes[mine].tolist(), int(budgets[one]))
        extra = shares[mine] - np.array(expected, int)
        assert set(extra.tolist()) <= {0, 1}
        assert extra.sum() == left
        assert (shares[mine] <= sizes[mine]).all()


def test_the_remainder_falls_on_every_open_child_alike():
    sizes, parent = np.array([1, 5, 5, 5, 5]), np.zeros(5, np.int32)
    rng = np.random.default_rng(0)
    shares = np.array(
        [share_out(np.array([11]), sizes, parent, luck=rng.random(5)) for _ in range(1000)]
    )  # 1 and four times 2, and two of the four by lot
    np.testing.assert_allclose(shares.mean(axis=0), [1, 2.5, 2.5, 2.5, 2.5], atol=0.08)


@pytest.mark.parametrize("trial", range(10))
def test_budgets_are_exact_on_every_level(trial):
    rng = np.random.default_rng(trial)
    num_rows = int(rng.integers(1, 3000))
    candidates = draw_candidates(rng, num_rows, 120)
    parents = draw_tree(rng, 120, 30, 7)
    budget = int(rng.integers(0, num_rows + 1))
    quota = leaf_quotas(candidates.leaf, parents, budget=budget, seed=trial)
    sizes = np.bincount(candidates.leaf, minlength=120)
    assert quota.sum() == budget
    assert (quota <= sizes).all()
    chosen = balanced_sample(candidates, parents, budget=budget, order="random", seed=trial)
    taken = np.bincount(candidates.leaf[chosen], minlength=120)
    np.testing.assert_array_equal(taken, quota)
    # On every level: of two clusters of one parent, the one that gets less by more than one image is full.
    above = [*parents, np.zeros(7, np.int32)]
    levels = [(taken, sizes)]
    for parent in parents:
        levels.append(tuple(np.bincount(parent, of) for of in levels[-1]))
    for (got, has), parent in zip(levels, above, strict=True):
        for one in range(parent.max() + 1):
            mine, full = got[parent == one], (got == has)[parent == one]
            assert full[mine < mine.max(initial=0) - 1].all()


def test_the_last_clusters_of_a_level_may_be_empty():
    leaf = np.array([0, 0, 1, 1, 2], np.int32)
    middle = np.array([0, 0, 1], np.int32)  # of four clusters, of which two are empty
    top = np.array([0, 1, 1, 0], np.int32)
    assert leaf_quotas(leaf, [middle, top], budget=4, seed=0).sum() == 4


def test_more_than_there_is_gives_everything():
    rng = np.random.default_rng(0)
    candidates = draw_candidates(rng, 500, 40)
    for budget in (500, 501, 10**12):
        assert balanced_sample(
            candidates, draw_tree(rng, 40, 5), budget=budget, order="closest", seed=0
        ).all()


def test_nothing_of_nothing():
    none = Candidates(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    assert balanced_sample(none, [], budget=5, order="random", seed=0).shape == (0,)
    some = draw_candidates(np.random.default_rng(0), 10, 3)
    assert not balanced_sample(some, [], budget=0, order="random", seed=0).any()


@pytest.mark.parametrize("order", ["random", "closest"])
def test_the_order_of_the_images_does_not_matter(order):
    rng = np.random.default_rng(3)
    candidates, parents = draw_candidates(rng, 800, 60), draw_tree(rng, 60, 12, 3)
    chosen = balanced_sample(candidates, parents, budget=200, order=order, seed=7)
    for _ in range(3):
        move = rng.permutation(800)
        moved = Candidates(candidates.leaf[move], candidates.score[move], candidates.id_rank[move])
        again = balanced_sample(moved, parents, budget=200, order=order, seed=7)
        np.testing.assert_array_equal(again, chosen[move])


def test_the_seed_decides():
    rng = np.random.default_rng(4)
    candidates, parents = draw_candidates(rng, 800, 60), draw_tree(rng, 60, 12)
    one, again, other = (
        balanced_sample(candidates, parents, budget=100, order="random", seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_closest_takes_the_best_scores_and_ties_go_by_id():
    candidates = Candidates(
        np.array([0, 0, 0, 0, 1], np.int32),
        np.array([0.5, 0.9, 0.5, 0.4, 0.1], np.float32),
        np.array([3, 4, 2, 0, 1]),
    )
    chosen = balanced_sample(candidates, [], budget=3, order="closest", seed=0)
    assert chosen.tolist() == [False, True, True, False, True]


def test_random_images_of_a_leaf_are_drawn_uniformly():
    candidates = Candidates(np.zeros(10, np.int32), np.zeros(10, np.float32), np.arange(10)[::-1].copy())
    picks = sum(
        balanced_sample(candidates, [], budget=3, order="random", seed=seed).astype(int)
        for seed in range(600)
    )
    np.testing.assert_allclose(picks / 600, 0.3, atol=0.08)


def test_a_larger_budget_takes_nothing_from_any_cluster():
    rng = np.random.default_rng(5)
    candidates, parents = draw_candidates(rng, 1000, 50), draw_tree(rng, 50, 10)
    quotas = [leaf_quotas(candidates.leaf, parents, budget=budget, seed=0) for budget in range(0, 1000, 90)]
    for less, more in pairwise(np.bincount(parents[0], quota) for quota in quotas):
        assert (less <= more).all()
