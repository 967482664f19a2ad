"""Positions resampled by products of matrices, as exported graphs do it: the same as by PyTorch."""

import pytest
import torch
from torch import Tensor

from pretrain.model.positions import interpolate_positions, resample_by_products

GRIDS = [(2, 3), (3, 5), (7, 7), (16, 16), (37, 37), (50, 20)]
KINDS = [(0.1, False), (0.0, False), (0.0, True), (0.1, True)]


def drawn_positions(side: int, dim: int = 24) -> Tensor:
    return torch.randn(1, side * side, dim, generator=torch.Generator().manual_seed(side))


@pytest.mark.parametrize(("offset", "antialias"), KINDS)
@pytest.mark.parametrize("side", [4, 16, 37])
def test_it_is_what_pytorch_interpolates(side: int, offset: float, antialias: bool) -> None:
    positions = drawn_positions(side)
    for grid in GRIDS:
        expected = interpolate_positions(positions, grid, offset=offset, antialias=antialias)
        made = resample_by_products(positions, grid, offset=offset, antialias=antialias)
        assert (made - expected).abs().max() < 2e-5, grid


@pytest.mark.parametrize(("offset", "antialias"), KINDS)
def test_on_their_own_grid_nothing_changes(offset: float, antialias: bool) -> None:
    positions = drawn_positions(4)
    assert torch.equal(resample_by_products(positions, (4, 4), offset=offset, antialias=antialias), positions)


def test_two_columns_between_two() -> None:
    """By hand: from 2 places to 4, a new one lies a quarter before or behind an old one."""
    positions = torch.tensor([[[0.0], [1.0], [0.0], [1.0]]])
    made = resample_by_products(positions, (2, 4), offset=0.0, antialias=False)

    def near(d: float) -> float:
        return (1.25 * d - 2.25) * d * d + 1

    def far(d: float) -> float:
        return ((-0.75 * d + 3.75) * d - 6) * d + 3

    # Of the place at 1 and those behind it, which repeat it.
    row = [near(1.25 - 0.5) * 0 + far(1.25), near(0.75) + far(1.75), near(0.25) + far(1.25), 1 - far(1.25)]
    assert made[0, :4, 0].tolist() == pytest.approx(row, abs=1e-6)
