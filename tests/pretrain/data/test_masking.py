"""Masks: the algorithm against a plain version of it, by hand, and what it promises about counts."""

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import ks_2samp

from pretrain.data.masking import MaskingConfig, mask_batch, mask_block

GRID = (16, 16)
OFFICIAL = MaskingConfig()
Uniform = Callable[[float, float], float]
Integer = Callable[[int, int], int]


def plain_mask(
    grid: tuple[int, int], num_target: int, uniform: Uniform, integer: Integer
) -> list[list[bool]]:
    """The official algorithm with the official constants, patch by patch; `integer` includes its end."""
    height, width = grid
    mask = [[False] * width for _ in range(height)]
    count = 0
    while count < num_target:
        wanted = min(num_target - count, height * width // 2)
        added = 0
        for _ in range(10):
            area = uniform(4, wanted)
            aspect = math.exp(uniform(math.log(0.3), math.log(1 / 0.3)))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if w < width and h < height:
                top, left = integer(0, height - h), integer(0, width - w)
                new = [
                    (i, j)
                    for i in range(top, top + h)
                    for j in range(left, left + w)
                    if not mask[i][j]
                ]  # fmt: skip
                if 0 < len(new) <= wanted:
                    for i, j in new:
                        mask[i][j] = True
                    added = len(new)
                    break
        if added == 0:
            break
        count += added
    return mask


@pytest.mark.parametrize("grid", [(16, 16), (14, 14), (7, 20), (4, 4), (3, 3)])
def test_mask_is_that_of_the_plain_algorithm(grid: tuple[int, int]) -> None:
    """The same draws give the same mask, patch for patch."""
    for seed in range(60):
        num_target = seed * grid[0] * grid[1] // 60
        rng = np.random.default_rng(seed)
        expected = plain_mask(
            grid,
            num_target,
            lambda low, high, rng=rng: low + rng.random() * (high - low),  # type: ignore[misc]
            lambda low, high, rng=rng: int(rng.integers(low, high, endpoint=True)),  # type: ignore[misc]
        )
        got = mask_block(grid, num_target, OFFICIAL, np.random.default_rng(seed))
        assert got.tolist() == expected


def test_shortfall_is_distributed_as_that_of_the_plain_algorithm() -> None:
    """Drawn by another generator: two-sample KS below its 0.1 % point, 0.087 for 1,000 masks each."""
    plain = random.Random(1)
    expected, got = [], []
    for seed in range(1000):
        num_target = 20 + seed % 100
        mask = plain_mask(GRID, num_target, plain.uniform, plain.randint)
        expected.append(num_target - sum(map(sum, mask)))
        got.append(num_target - mask_block(GRID, num_target, OFFICIAL, np.random.default_rng(seed)).sum())
    assert ks_2samp(expected, got).statistic < 0.087
    assert np.mean(got) == pytest.approx(np.mean(expected), abs=0.3)
    assert min(got) == 0  # it may meet its target, and it may not
    assert max(got) > 0


def test_mask_by_hand() -> None:
    """Square blocks of exactly four patches: one 2 x 2 square, anywhere on the grid with equal odds."""
    config = MaskingConfig(min_aspect=1)
    seen = np.zeros((3, 3), int)
    for seed in range(900):
        mask = mask_block((4, 4), 4, config, np.random.default_rng(seed))
        rows, columns = np.nonzero(mask)
        top, left = rows.min(), columns.min()
        assert mask.sum() == 4
        assert mask[top : top + 2, left : left + 2].all()
        seen[top, left] += 1
    assert np.abs(seen - 100).max() < 40  # 4 standard deviations of a count of 100


def test_a_block_of_one_size() -> None:
    """A largest and smallest block of 16 patches, of aspect 1, is a square of 4 x 4."""
    config = MaskingConfig(max_block_ratio=1 / 16, min_aspect=1, min_block_patches=16)
    for seed in range(50):
        mask = mask_block(GRID, 16, config, np.random.default_rng(seed))
        rows, columns = np.nonzero(mask)
        assert mask.sum() == 16
        assert (np.ptp(rows), np.ptp(columns)) == (3, 3)


def test_the_shapes_of_blocks() -> None:
    """One block of 36 of 1,600 patches: its aspect lies in 0.3..1/0.3, log-uniform but for the rounding."""
    config = MaskingConfig(min_block_patches=36, max_block_ratio=36 / 1600, tries=1)
    logs = []
    for seed in range(600):
        mask = mask_block((40, 40), 36, config, np.random.default_rng(seed))
        if not mask.any():  # rounded up to 37 or more patches, which is refused
            continue
        block = np.argwhere(mask)
        height, width = np.ptp(block, axis=0) + 1
        if height * width == mask.sum() >= 30:  # the first block, with none beside it
            assert math.sqrt(36 * 0.3) - 0.5 <= height <= math.sqrt(36 / 0.3) + 0.5
            logs.append(math.log(height / width))
    assert len(logs) > 150
    assert np.mean(logs) == pytest.approx(0, abs=0.15)
    assert min(logs) == pytest.approx(math.log(0.3), abs=0.15)
    assert max(logs) == pytest.approx(-math.log(0.3), abs=0.15)


@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (2, 2), (3, 2), (4, 4), (16, 16)])
@pytest.mark.parametrize("exact", [False, True])
def test_the_target_is_never_passed_and_met_where_asked(grid: tuple[int, int], exact: bool) -> None:
    config = MaskingConfig(exact=exact)
    for num_target in range(grid[0] * grid[1] + 1):
        mask = mask_block(grid, num_target, config, np.random.default_rng(num_target))
        assert mask.shape == grid
        assert mask.sum() == num_target if exact else mask.sum() <= num_target


def test_exact_only_adds_to_the_blocks() -> None:
    for seed in range(30):
        blocks = mask_block(GRID, 90, OFFICIAL, np.random.default_rng(seed))
        exact = mask_block(GRID, 90, MaskingConfig(exact=True), np.random.default_rng(seed))
        assert exact[blocks].all()


@pytest.mark.parametrize("num_target", [-1, 257])
def test_a_target_off_the_grid_is_refused(num_target: int) -> None:
    with pytest.raises(ValueError, match="of a grid of 16 x 16"):
        mask_block(GRID, num_target, OFFICIAL, np.random.default_rng(0))


def test_a_batch_by_hand() -> None:
    """Of 9 images int(4.5) = 4 are masked, with targets of 10, 20, 30 and 40 patches and up to 10 more."""
    config = MaskingConfig(exact=True)
    for seed in range(50):
        masks = mask_batch(9, (10, 10), config, np.random.default_rng(seed))
        assert masks.shape == (9, 100)
        counts = sorted(masks.sum(axis=1))
        assert counts[:5] == [0] * 5
        for count, low in zip(counts[5:], (10, 20, 30, 40), strict=True):
            assert low <= count <= low + 10


def test_a_batch_of_the_official_config() -> None:
    """128 crops: 64 masked, on average 30 % of their patches less the shortfall; places shuffled."""
    masks = np.stack([mask_batch(128, GRID, OFFICIAL, np.random.default_rng(seed)) for seed in range(20)])
    counts = masks.sum(axis=2)
    assert ((counts > 0).sum(axis=1) == 64).all()
    exact = np.stack(
        [
            mask_batch(128, GRID, MaskingConfig(exact=True), np.random.default_rng(seed)).sum(axis=1)
            for seed in range(20)
        ]
    )
    # A stratum is 0.1 % of the patches wide, so a batch's total hardly varies: 64 x 0.3 x 256, rounded down.
    assert exact.sum(axis=1) == pytest.approx(64 * (0.3 * 256 - 0.5), rel=0.005)
    assert 0.93 < counts.sum() / exact.sum() < 1
    # Which of the images are masked is a fair draw: each is in 10 of 20 batches, to 5 standard deviations.
    assert np.abs((counts > 0).sum(axis=0) - 10).max() < 5 * math.sqrt(5)


@pytest.mark.parametrize(("num_images", "probability"), [(0, 0.5), (1, 0.5), (4, 0.0)])
def test_a_batch_of_which_nothing_is_masked(num_images: int, probability: float) -> None:
    masks = mask_batch(num_images, (4, 4), MaskingConfig(probability=probability), np.random.default_rng(0))
    assert masks.shape == (num_images, 16)
    assert not masks.any()


def test_a_batch_of_which_everything_is_masked() -> None:
    config = MaskingConfig(probability=1, ratio_min=1, ratio_max=1, exact=True)
    assert mask_batch(3, (4, 4), config, np.random.default_rng(0)).all()


def test_the_generator_decides_everything() -> None:
    first, again, other = (mask_batch(16, GRID, OFFICIAL, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_ratios_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValidationError, match="above ratio_max"):
        MaskingConfig(ratio_min=0.6)
