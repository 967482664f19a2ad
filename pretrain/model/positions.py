"""Position embeddings on another grid than the one that they were learned on."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

# Of the cubic kernel; PyTorch takes Keys' own value where it antialiases, as Pillow does.
SHARPNESS, SHARPNESS_ANTIALIASED = -0.75, -0.5


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
    if torch.compiler.is_exporting():
        return resample_by_products(positions, grid, offset=offset, antialias=antialias)
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


def resample_by_products(
    positions: Float[Tensor, "1 n dim"], grid: tuple[int, int], *, offset: float, antialias: bool
) -> Float[Tensor, "1 m dim"]:
    """The same resampling, as a product with a matrix for the rows and one for the columns.

    It is slower, and its operations are plain arithmetic on the sizes: one exported graph holds for every
    size, on its own grid too, where both matrices are those of nothing changed. Lengths may be symbols.

    Args, Returns: see `interpolate_positions`.
    """
    side = math.isqrt(positions.shape[1])
    rows, columns = (_number(length, positions) for length in grid)
    is_own = (rows == side) & (columns == side)
    by_row, by_column = (
        _resampling(length, number, side, is_own, offset=offset, antialias=antialias)
        for length, number in zip(grid, (rows, columns), strict=True)
    )
    square = positions.float().view(side, side, -1)
    resampled = torch.einsum("rm,mnd->rnd", by_row, square)
    resampled = torch.einsum("cn,rnd->rcd", by_column, resampled)
    return resampled.flatten(0, 1)[None].to(positions.dtype)


def _number(length: int, like: Tensor) -> Float[Tensor, ""]:
    """A length as a tensor of fp64, in which a scale is computed as PyTorch does."""
    return torch.ones((), dtype=torch.float64, device=like.device) * length


def _resampling(
    length: int, number: Tensor, side: int, is_own: Tensor, *, offset: float, antialias: bool
) -> Float[Tensor, "length side"]:
    """What share of each of `side` old places is in each of `length` new ones."""
    scale = torch.where(is_own, 1.0, side / (number + offset)).float()
    centres = scale * (torch.arange(length, device=number.device, dtype=torch.float32) + 0.5)
    places = torch.arange(side, device=number.device, dtype=torch.float32)
    if antialias:
        width = scale.clamp(min=1.0)
        first, end = ((centres + sign * 2 * width + 0.5).floor() for sign in (-1, 1))
        is_near = (places >= first[:, None]) & (places < end[:, None])
        shares = _cubic((places - centres[:, None] + 0.5) * (1 / width), SHARPNESS_ANTIALIASED) * is_near
        return shares / shares.sum(dim=1, keepdim=True)
    before = (centres - 0.5).floor()
    taps = torch.arange(-1, 3, device=number.device, dtype=torch.float32)
    shares = _cubic((centres - 0.5 - before)[:, None] - taps, SHARPNESS)
    # Beyond the border the outermost place is taken again.
    taken = (before[:, None] + taps).clamp(0, side - 1)
    return ((taken[:, :, None] == places) * shares[:, :, None]).sum(dim=1)


def _cubic(distance: Tensor, sharpness: float) -> Tensor:
    """The cubic convolution kernel, 0 from a distance of 2 on. Source: Keys 1981, eq. 15."""
    d = distance.abs()
    near = ((sharpness + 2) * d - (sharpness + 3)) * d * d + 1
    far = ((sharpness * d - 5 * sharpness) * d + 8 * sharpness) * d - 4 * sharpness
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))
