"""What happens to the pixels of a crop: colours, grey, blur.

Each operation gives what `torchvision.transforms.v2.functional` gives for uint8 tensors, to within one level
(the tests hold this), at a fraction of the price. Prices here are for 3 x 224 x 224 levels on one core.

Levels are whole numbers 0..255 in fp32. They are NumPy's, not torch's: on local crops a call costs a half to
a third, and NumPy works on one thread whatever torch has been told, so that the bits do not depend on that.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32

# Multiply-adds in one product of matrices. From 524,288 on OpenBLAS calls its threads, which the workers of a
# loader must not: with another process on the cores, a blur of 1 ms then took 60 and more.
MAX_PRODUCT = 400_000

JitterOp = Literal["brightness", "contrast", "saturation", "hue"]


def adjust(levels: Float32[np.ndarray, "3 h w"], op: JitterOp, factor: float) -> Float32[np.ndarray, "3 h w"]:
    """Change the colours in one respect, and round down, as torchvision does after every step.

    Args:
        levels: RGB, whole levels, (3, h, w); may be overwritten.
        op: `brightness` blends with black, `contrast` with the mean grey, `saturation` with the pixel's grey.
        factor: share of the picture in the blend, 0 or more; for `hue` the turn, -0.5..0.5 circles.

    Returns:
        RGB, whole levels, (3, h, w).
    """
    match op:
        case "brightness":
            levels *= factor
        case "contrast":
            other = (1 - factor) * to_grey(levels).mean(dtype=np.float64)
            levels *= factor
            levels += np.float32(other)
        case "saturation":
            grey = to_grey(levels)
            grey *= 1 - factor
            levels *= factor
            levels += grey
        case "hue":
            return turn_hue(levels, factor)
    if factor > 1:  # up to there a blend lies between two pictures
        torch.from_numpy(levels).clamp_(0, 255)  # 35 µs, and NumPy's clip 106
    found: np.ndarray = np.floor(levels, out=levels)
    return found


def to_grey(levels: Float32[np.ndarray, "3 h w"]) -> Float32[np.ndarray, "h w"]:
    """Weigh the channels by .2989, .587 and .114, and round down.

    Args:
        levels: RGB, whole levels, (3, h, w).

    Returns:
        Whole levels, (h, w).
    """
    red, green, blue = levels
    grey: np.ndarray = red * np.float32(0.2989)
    grey += green * np.float32(0.587)
    grey += blue * np.float32(0.114)
    np.floor(grey, out=grey)
    return grey


def turn_hue(levels: Float32[np.ndarray, "3 h w"], circles: float) -> Float32[np.ndarray, "3 h w"]:
    """Turn the hue and keep value and saturation: what the way through HSV does, without its branches.

    Angles are counted from red in sixths of the circle, so that green lies at 2 and blue at -2. With top and
    low the largest and smallest channel of a pixel, and chroma = top - low, the way there is

        chroma * |angle| = chroma + green + blue - red - low,  on green's side where green >= blue,

    and back, with d the distance from a channel's primary to the angle, around the circle,

        level = clamp(low + chroma * (2 - d), low, top),  d = |3 - ||angle - primary| - 3||,

    which holds for differences up to 9; the largest is 8. All is kept multiplied by chroma, so nothing is
    divided, and a grey pixel is no exception. 0.7 ms; torchvision's choice of a sextant by masks takes 5.

    Args:
        levels: RGB, whole levels, (3, h, w).
        circles: the turn, -0.5..0.5.

    Returns:
        RGB, whole levels, (3, h, w).
    """
    red, green, blue = levels
    top = np.maximum(np.maximum(red, green), blue)
    low = np.minimum(np.minimum(red, green), blue)
    chroma = top - low
    angle = np.copysign(chroma + green + blue - red - low, green - blue)
    angle += chroma * np.float32(6 * circles)
    distance = np.stack([angle, angle - 2 * chroma, angle + 2 * chroma])
    for _ in range(2):
        np.abs(distance, out=distance)
        distance -= 3 * chroma
    np.abs(distance, out=distance)
    turned: np.ndarray = np.subtract(low + 2 * chroma, distance, out=distance)
    np.maximum(turned, low, out=turned)
    np.minimum(turned, top, out=turned)
    turned *= np.float32(255.999 / 255)  # torchvision's way from 0..1 back to levels: floor(255.999 x)
    np.floor(turned, out=turned)
    return turned


def blur(
    levels: Float32[np.ndarray, "c h w"], sigma_px: float, *, kernel_px: int
) -> Float32[np.ndarray, "c h w"]:
    """Blur with a Gaussian window, mirrored at the edges, as two products with band matrices.

    The products are exact in fp32, so that the order of their sums does not matter: the weights are in
    4,096ths, and between the passes levels are kept in 16ths, so that no sum passes 2^24. These two roundings
    come to less than 0.6 levels. Only blocks around the diagonal of the band are multiplied: 0.7 ms, and with
    the whole matrix 1.5; a depthwise convolution takes 3 to 4.

    Args:
        levels: whole levels, (c, h, w).
        sigma_px: standard deviation of the Gaussian, pixels.
        kernel_px: side of the window, odd, at most 2 h - 1 and 2 w - 1, pixels.

    Returns:
        Whole levels, (c, h, w).
    """
    height_px, width_px = levels.shape[1:]
    reach_px = kernel_px // 2
    down = _band_matrix(height_px, sigma_px, kernel_px)
    across = down if width_px == height_px else _band_matrix(width_px, sigma_px, kernel_px)
    halfway, blurred = np.empty_like(levels), np.empty_like(levels)
    for inner, outer in _spans(height_px, reach_px, other_px=width_px):
        np.matmul(down[inner, outer], levels[:, outer], out=halfway[:, inner])
    halfway *= 16 / 4096
    np.rint(halfway, out=halfway)
    for inner, outer in _spans(width_px, reach_px, other_px=height_px):
        np.matmul(halfway[..., outer], across[inner, outer].T, out=blurred[..., inner])
    blurred *= 1 / (16 * 4096)
    np.rint(blurred, out=blurred)
    return blurred


def _band_matrix(side_px: int, sigma_px: float, kernel_px: int) -> Float32[np.ndarray, "s s"]:
    """The matrix whose row i holds the window around pixel i, in 4,096ths; each row's sum is 4,096."""
    reach_px = kernel_px // 2
    window = np.exp(-0.5 * (np.arange(-reach_px, reach_px + 1) / sigma_px) ** 2)
    window = np.rint(4096 * window / window.sum())
    window[reach_px] += 4096 - window.sum()
    wide = np.zeros((side_px, side_px + 2 * reach_px), np.float32)
    for k, weight in enumerate(window):
        wide.reshape(-1)[k :: wide.shape[1] + 1] = weight
    band = wide[:, reach_px:-reach_px]
    # What hangs over an edge is mirrored inwards; the pixel at the edge itself is not repeated.
    band[:, 1 : reach_px + 1] += wide[:, :reach_px][:, ::-1]
    band[:, -reach_px - 1 : -1] += wide[:, -reach_px:][:, ::-1]
    return band


def distort_bands(
    samples: Float32[np.ndarray, "c h w"],
    jitter: Sequence[tuple[JitterOp, float]],
    blur_sigma_px: float | None,
    *,
    kernel_px: int,
) -> None:
    """Do to samples of any range, in place, what means something for them: see `adjust_bands`, `blur_bands`.

    Args:
        samples: of any unit, (c, h, w).
        jitter: operations with their factors, in the order of application.
        blur_sigma_px: standard deviation of the Gaussian, pixels; None: not blurred.
        kernel_px: side of its window, pixels.
    """
    for op, factor in jitter:
        adjust_bands(samples, op, factor)
    if blur_sigma_px is not None:
        samples[:] = blur_bands(samples, blur_sigma_px, kernel_px=kernel_px)


def adjust_bands(samples: Float32[np.ndarray, "c h w"], op: JitterOp, factor: float) -> None:
    """Change brightness or contrast of samples of any range, in place; saturation and hue are of colour.

    What comes out is neither rounded nor clipped: samples have no level that is the highest.

    Args:
        samples: of any unit, (c, h, w).
        op: `brightness` multiplies, `contrast` blends every band with its own mean; the others do nothing.
        factor: 0 or more.
    """
    if op == "contrast":
        means = samples.mean(axis=(1, 2), dtype=np.float64, keepdims=True)
        samples *= np.float32(factor)
        samples += ((1 - factor) * means).astype(np.float32)
    elif op == "brightness":
        samples *= np.float32(factor)


def blur_bands(
    samples: Float32[np.ndarray, "c h w"], sigma_px: float, *, kernel_px: int
) -> Float32[np.ndarray, "c h w"]:
    """Blur samples of any range with a Gaussian window, mirrored at the edges.

    Sums of such samples are not exact, so they are added up in one order on every machine: shift by shift.

    Args:
        samples: of any unit, (c, h, w).
        sigma_px: standard deviation of the Gaussian, pixels.
        kernel_px: side of the window, odd, at most 2 h - 1 and 2 w - 1, pixels.
    """
    reach_px = kernel_px // 2
    window = np.exp(-0.5 * (np.arange(-reach_px, reach_px + 1) / sigma_px) ** 2)
    weights = (window / window.sum()).astype(np.float32)
    for axis in (1, 2):
        side_px = samples.shape[axis]
        margins = [(reach_px, reach_px) if axis == side else (0, 0) for side in range(3)]
        wide = np.moveaxis(np.pad(samples, margins, mode="reflect"), axis, 0)
        total = np.zeros_like(wide[:side_px])
        for shift, weight in enumerate(weights):
            total += weight * wide[shift : shift + side_px]
        samples = np.moveaxis(total, 0, axis)
    return np.ascontiguousarray(samples)


def _spans(side_px: int, reach_px: int, *, other_px: int) -> Iterator[tuple[slice, slice]]:
    """Cut a side into spans, each with the wider one that its blurred pixels are made from."""
    step_px = int(math.sqrt(MAX_PRODUCT / other_px + reach_px**2)) - reach_px
    step_px = max(step_px, 1)
    for start in range(0, side_px, step_px):
        stop = min(start + step_px, side_px)
        yield slice(start, stop), slice(max(0, start - reach_px), min(side_px, stop + reach_px))
