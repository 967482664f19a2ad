"""Samples of more than 8 bits as 8-bit ones, by the range that they use, not by the one that they could."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer, UInt8

# Of the samples, on either side, that do not decide on the range: a hot pixel, a marker of no data.
OUTLIERS = 0.001
# The range without outliers decides where it is this many bits narrower: the picture would have at most
# 16 of 256 levels.
OUTLIER_BITS = 4
# With fewer 8-bit levels than this from darkest to brightest nothing can be seen, though there may be
# something: then the range is stretched, if it has at least 32 steps and so is more than noise of rounding.
MIN_LEVELS = 8
MIN_STEPS = 32


@dataclass(frozen=True, slots=True)
class Scaling:
    """How samples become levels: low..high as 0..255, or by a shift, which keeps the steps of the camera."""

    low: int | float
    high: int | float
    shift: int | None = None
    said: tuple[str, ...] = ()  # warnings, where it is not what the container's type says

    def __call__(self, samples: np.ndarray) -> UInt8[np.ndarray, "..."]:
        """The levels of samples of any shape."""
        if self.shift is not None:
            return (np.clip(samples, self.low, self.high) >> self.shift).astype(np.uint8)
        inside = np.clip(samples.astype(np.float64), self.low, self.high) - self.low
        return np.rint(inside * (255 / (self.high - self.low))).astype(np.uint8)


def scaling_of(some: Integer[np.ndarray, "..."], *, least: int, most: int) -> Scaling:
    """How integers become levels.

    A 10-bit camera, a 12-bit scanner and an 8-bit picture in a 16-bit container leave the high bits empty,
    so the container's high byte is black or nearly so. The highest 8 of the bits in use are kept: samples
    below 256 stay what they are, those of the full 16 bits give their high byte. Where all of the picture
    would then lie within a few levels (thermal cameras, tomography), or samples are negative, its range is
    stretched to 0–255.

    Args:
        some: samples from all over the picture, any shape, of the type that its container has.
        least, most: of all samples.
    """
    low, high = (int(value) for value in _range_of(some))
    bits = max(8, most.bit_length())
    if bits - max(8, high.bit_length()) >= OUTLIER_BITS:
        bits = max(8, high.bit_length())
    steps, shift = high - low, bits - 8
    if least < 0 or (steps >= MIN_STEPS and (high >> shift) - (low >> shift) < MIN_LEVELS):
        return Scaling(low, max(high, low + 1), said=("levels_stretched",))
    is_usual = most == 0 or bits == 8 * some.dtype.itemsize
    return Scaling(0, (1 << bits) - 1, shift, () if is_usual else (f"levels_from_{bits}_bits",))


def float_scaling_of(some: Float[np.ndarray, "..."], *, least: float, most: float) -> Scaling | None:
    """How floats become levels: as 0..1 or 0..255 by their range, or stretched where that shows nothing.

    Args:
        some: samples from all over the picture, any shape.
        least, most: of all samples; NaN where there is one.

    Returns:
        The scaling; None where a value is not finite, negative or beyond 255: of unknown range.
    """
    if not (least >= 0 and most <= 255):
        return None
    low, high = (float(value) for value in _range_of(some))
    full = 1.0 if most <= 1 else 255.0
    # A float has 24 bits: a millionth of the greatest value is rounding.
    if (high - low) * 255 / full >= MIN_LEVELS or high - low <= 1e-6 * most:
        return Scaling(0.0, full)
    return Scaling(low, high, said=("levels_stretched",))


def shows_little(high_bytes: UInt8[np.ndarray, "..."]) -> bool:
    """Whether the high bytes of 16-bit samples are so alike that the low ones are worth a second decode."""
    low, high = (int(value) for value in _range_of(high_bytes))
    return high < 1 << (8 - OUTLIER_BITS) or high - low < MIN_LEVELS


def _range_of(some: np.ndarray) -> np.ndarray:
    """The darkest and the brightest sample but for outliers."""
    beyond = int(OUTLIERS * some.size)
    places = [beyond, some.size - 1 - beyond]
    return np.partition(some.reshape(-1), places)[places]
