"""Antialiased resizing by NumPy: the very bytes of torch's uint8 kernels, where torch's import is too slow.

Those kernels round each weight to a whole multiple of 2^-p, with p as large as 16 bits allow, add products in
whole numbers, and round to a byte after each axis, the horizontal one first. fp64 does the same: no sum of
products of a byte and a 16-bit weight leaves 53 bits.

Source: torch's `upsample_avx_bilinear_bicubic_uint8`, after Pillow's `ImagingResample`.
"""

import numpy as np
from jaxtyping import Float64, UInt8
from numpy import ndarray

from curation.pictures.views import Interpolation

_CUBIC = -0.5  # Keys 1981, eq. 4
_MAX_PRECISION = 22


def resize(
    pixels: UInt8[ndarray, "h w c"], size: tuple[int, int], interpolation: Interpolation
) -> UInt8[ndarray, "a b c"]:
    """Scale a picture as `torch.nn.functional.interpolate` does with `antialias=True`.

    Args:
        pixels: uint8 (h, w, c).
        size: height and width wanted, px.
    """
    across = _scaled(pixels.swapaxes(0, 1), size[1], interpolation).swapaxes(0, 1)
    return _scaled(across, size[0], interpolation)


def _scaled(
    pixels: UInt8[ndarray, "n m c"], num: int, interpolation: Interpolation
) -> UInt8[ndarray, "k m c"]:
    if len(pixels) == num:
        return pixels
    weights, precision = _weights(len(pixels), num, interpolation)
    sums = weights @ pixels.reshape(len(pixels), -1).astype(np.float64)
    rounded = np.floor((sums + 2.0 ** (precision - 1)) / 2.0**precision).clip(0, 255)
    return rounded.astype(np.uint8).reshape(num, *pixels.shape[1:])


def _weights(num_in: int, num_out: int, interpolation: Interpolation) -> tuple[Float64[ndarray, "k n"], int]:
    """Whole numbers, and the power of two that they are over."""
    scale = num_in / num_out
    reach = (2 if interpolation == "bicubic" else 1) * max(scale, 1.0)
    weights = np.zeros((num_out, num_in))
    for row in range(num_out):
        centre = scale * (row + 0.5)
        first, last = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), num_in)
        distance = np.abs(np.arange(first, last) - centre + 0.5) / max(scale, 1.0)
        kernel = _bicubic(distance) if interpolation == "bicubic" else np.maximum(1 - distance, 0)
        weights[row, first:last] = kernel / kernel.sum()
    largest, precision = weights.max(), 0
    while precision < _MAX_PRECISION and int(0.5 + largest * 2 ** (precision + 1)) < 1 << 15:
        precision += 1
    return np.trunc(weights * 2.0**precision + np.copysign(0.5, weights)), precision


def _bicubic(x: Float64[ndarray, " n"]) -> Float64[ndarray, " n"]:
    inner = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    outer = (((x - 5) * x + 8) * x - 4) * _CUBIC
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))
