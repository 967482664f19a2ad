"""Position embeddings on another grid than the one that they were learned on."""

import math

from jaxtyping import Float
from torch import Tensor, nn


def interpolate_positions(
    positions: Float[Tensor, "1 n dim"], grid: tuple[int, int], *, offset: float, antialias: bool
) -> Float[Tensor, "1 m dim"]:
    """Resample the embeddings of a square grid bicubically; on their own grid they come back as they are.

    The released models without registers were made with `offset` 0.1 and no antialiasing, those with
    registers with 0 and antialiasing. The two differ visibly in the features, so a model says which it is.

    Args:
        positions: of the M × M patches, row by row; n = M².
        grid: rows and columns wanted; m is their product.
        offset: added to rows and columns when the scale is computed; 0 takes the exact size instead.
        antialias: of the resampling.

    Returns:
        In the dtype of `positions`; computed in fp32.

    Source: arXiv:2010.11929, §3.2; the offset is that of the official DINO and DINOv2 code.
    """
    side = math.isqrt(positions.shape[1])
    assert side * side == positions.shape[1], "positions are learned on a square grid"
    if grid == (side, side):
        return positions
    square = positions.float().view(1, side, side, -1).permute(0, 3, 1, 2)
    if offset:
        # The scale itself enters the sampling positions: a scale of (rows + 0.1) / M is not one of rows / M.
        scale = tuple((length + offset) / side for length in grid)
        resampled = nn.functional.interpolate(square, scale_factor=scale, mode="bicubic", antialias=antialias)
    else:
        resampled = nn.functional.interpolate(square, size=grid, mode="bicubic", antialias=antialias)
    assert resampled.shape[-2:] == grid, (resampled.shape, grid)
    return resampled.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)
