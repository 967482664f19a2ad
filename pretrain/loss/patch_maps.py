"""Patch features as maps that can be resampled to another grid."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn


def resampled(
    patches: Float[Tensor, "b n dim"],
    grid: tuple[int, int],
    *,
    to: tuple[int, int],
    mode: Literal["bilinear", "bicubic"],
) -> Float[Tensor, "b m dim"]:
    """Patch features on another grid, in fp32, without antialiasing.

    Args:
        patches: row by row.
        grid: their rows and columns.
        to: rows and columns of the result; where they are those of the patches, these stay.
        mode: of the interpolation; pixel centres stay where they are in the picture.
    """
    if grid == to:
        return patches.float()
    maps = patches.float().unflatten(1, grid).permute(0, 3, 1, 2)
    made = nn.functional.interpolate(maps, size=to, mode=mode, align_corners=False, antialias=False)
    return made.flatten(2).mT
