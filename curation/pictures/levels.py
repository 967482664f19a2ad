"""Samples of more than 8 bits as 8-bit ones, by the range that they use, not by the one that they could."""

from collections.abc import Iterator
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
# Where all samples are below 32 they are no noise, but classes or counts, and stretched too.
MIN_LEVELS = 8
MIN_STEPS = 32
# Of the samples, at either end of the range: a scale bar or a time of day burnt in, a value for no data. They
# do not decide on the range where the rest, the scene, could not be seen beside them.
MARKED = 0.1
# A scene that is brighter than its marks may be paper, and they ink: only one of fewer levels is preferred.
MIN_PAPER_LEVELS = 2
# One exact value at an end of the range, with nothing between it and the rest for as far as that reaches, is
# no part of a scene at any share: what lies beside a satellite's swath, what a depth camera did not see. A
# scene of fewer levels than this is stretched then, and the value keeps levels of its own, a share of the
# scene's: it may be paper after all.
FILLED_LEVELS = 32
FILL_MARGIN = 1 / 8
FLOAT_NOISE = 1e-6  # of the greatest value: a float has 24 bits, this is rounding

STRETCHED: tuple[str, ...] = ("levels_stretched",)
CLIPPED: tuple[str, ...] = ("levels_clipped",)
NOTHING: tuple[str, ...] = ()


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
            return np.asarray(np.clip(samples, self.low, self.high) >> self.shift, np.uint8)
        inside = samples.astype(
            np.float64
        )  # in place from here: it is eight times as large as what comes out
        np.clip(inside, self.low, self.high, out=inside)
        inside -= self.low
        inside *= 255 / (self.high - self.low)
        return np.rint(inside, out=inside).astype(np.uint8)


def scaling_of(some: Integer[np.ndarray, "..."], *, least: int, most: int) -> Scaling:
    """How integers become levels.

    A 10-bit camera, a 12-bit scanner and an 8-bit picture in a 16-bit container leave the high bits empty,
    so the container's high byte is black or nearly so. The highest 8 of the bits in use are kept: samples
    below 256 stay what they are, those of the full 16 bits give their high byte. Where all of the picture
    would then lie within a few levels (thermal cameras, tomography, classes), or samples are negative, its
    range is stretched to 0–255. What is burnt into a scene that it would hide is clipped.

    Args:
        some: samples from all over the picture, any shape, of the type that its container has.
        least, most: of all samples.
    """
    low, high = (int(value) for value in _range_of(some))
    bits, top, clipped = max(8, most.bit_length()), most, NOTHING
    if bits - max(8, high.bit_length()) >= OUTLIER_BITS:
        bits, top = max(8, high.bit_length()), high
    step = 1 << (bits - 8) if least >= 0 else max(1.0, (high - low) / 255)
    scene = _hidden_scene(some, step=step, noise=MIN_STEPS - 1, is_dark_known=bits >= 8 + OUTLIER_BITS)
    if scene is not None:
        low, high, clipped = int(scene[0]), int(scene[1]), CLIPPED
        if least < 0 or high >= step * (1 << OUTLIER_BITS):
            return Scaling(low, high, said=STRETCHED + CLIPPED)
        bits, top = max(8, high.bit_length()), high
    elif (filled := _scaling_beside_fill(some, step=step, noise=MIN_STEPS - 1)) is not None:
        return filled
    if 0 <= least < top < MIN_STEPS:
        return Scaling(least, top, said=STRETCHED + clipped)
    steps, shift = high - low, bits - 8
    if least < 0 or (steps >= MIN_STEPS and (high >> shift) - (low >> shift) < MIN_LEVELS):
        return Scaling(low, max(high, low + 1), said=STRETCHED + clipped)
    is_usual = most == 0 or bits == 8 * some.dtype.itemsize
    return Scaling(0, (1 << bits) - 1, shift, () if is_usual else (f"levels_from_{bits}_bits", *clipped))


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
    noise, full = FLOAT_NOISE * most, 1.0 if most <= 1 else 255.0
    if is_small := 1 < most < MIN_STEPS and most - least > noise:
        low, high = (low, high) if high - low > noise else (least, most)
        full = high - low
    scene = _hidden_scene(some, step=full / 255, noise=noise, is_dark_known=False)
    if scene is not None:
        return Scaling(float(scene[0]), float(scene[1]), said=STRETCHED + CLIPPED)
    if (filled := _scaling_beside_fill(some, step=full / 255, noise=noise)) is not None:
        return filled
    is_seen = (high - low) * 255 / full >= MIN_LEVELS or high - low <= noise
    return Scaling(0.0, full) if is_seen and not is_small else Scaling(low, high, said=STRETCHED)


def shows_little(high_bytes: UInt8[np.ndarray, "..."]) -> bool:
    """Whether the high bytes of 16-bit samples are so alike that the low ones are worth a second decode."""
    ranges = [_range_of(high_bytes), *_without_marks(high_bytes)]
    if any(high < 1 << (8 - OUTLIER_BITS) or int(high) - int(low) < MIN_LEVELS for low, high in ranges):
        return True
    return any(high - low < FILLED_LEVELS for low, high, _, _ in _without_fill(high_bytes, step=1))


def _hidden_scene(
    some: np.ndarray, *, step: int | float, noise: int | float, is_dark_known: bool
) -> tuple[int | float, int | float] | None:
    """The range of a scene that what is burnt into it would leave black or flat; None where nothing does.

    Args:
        some: samples from all over the picture, any shape.
        step: of one of the 256 levels.
        noise: the widest range that shows nothing.
        is_dark_known: that nothing but marks reaches the high bits tells that the scene has none.
    """
    low, high = (value.item() for value in _range_of(some))
    for scene_low, scene_high in _without_marks(some):
        least, most = scene_low.item(), scene_high.item()
        is_below, is_above = (far >= MIN_LEVELS * step for far in (least - low, high - most))
        if least == most or not (is_below or is_above):
            continue
        few = MIN_PAPER_LEVELS if is_below and low >= 0 else MIN_LEVELS
        is_black = is_dark_known and not is_below and low >= 0 and most < step * (1 << OUTLIER_BITS)
        if is_black or noise < most - least < few * step:
            return least, most
    return None


def _scaling_beside_fill(some: np.ndarray, *, step: int | float, noise: int | float) -> Scaling | None:
    """How a scene becomes levels of which a value for no data would leave few; None where there is neither.

    Args:
        some: samples from all over the picture, any shape.
        step: of one of the 256 levels.
        noise: the widest range that shows nothing, unless it is one of classes.
    """
    least = some.min()
    for low, high, below, above in _without_fill(some, step=step):
        may_be_ink = below > 0 and least >= 0  # on paper, which is a scene of few levels too
        if may_be_ink and below + above <= MARKED * some.size:
            continue
        is_classes = some.dtype.kind != "f" and low >= 0 and high < MIN_STEPS
        few = MIN_LEVELS if may_be_ink else FILLED_LEVELS
        if least < 0:  # stretched in any case: over what is there
            few = 256
        if low < high and (is_classes or noise < high - low < few * step):
            margin = FILL_MARGIN * (high - low)
            bounds = low - margin * (below > 0), high + margin * (above > 0)
            return Scaling(*bounds, said=STRETCHED + CLIPPED)
    return None


def _without_fill(
    some: np.ndarray, *, step: int | float
) -> Iterator[tuple[int | float, int | float, int, int]]:
    """The range of what is left without the least value, the greatest or both, and how many samples they are.

    Only where they are far away: nothing but outliers lies between for as far as the rest reaches.
    """
    flat = np.sort(some, axis=None)
    beyond = int(OUTLIERS * flat.size)
    darkest, brightest = flat[beyond], flat[-1 - beyond]
    num_least = int(np.searchsorted(flat, darkest, side="right"))
    num_most = flat.size - int(np.searchsorted(flat, brightest, side="left"))
    for below, above in ((num_least, num_most), (num_least, 0), (0, num_most)):
        rest = flat[below : flat.size - above]
        if rest.size <= beyond:
            continue
        low, high = (value.item() for value in _range_of(rest))
        far = max(high - low, MIN_LEVELS * step)
        is_far_below = below == 0 or low - darkest.item() >= far
        if is_far_below and (above == 0 or brightest.item() - high >= far):
            yield low, high, below, above


def _without_marks(some: np.ndarray) -> Iterator[np.ndarray]:
    """The range of what is not at the very ends; then without as many samples again: the edges of letters."""
    low, high = _range_of(some)
    counts = [int((some <= low).sum()), int((some >= high).sum())]
    below, above = (count if count <= MARKED * some.size else 0 for count in counts)
    for times in (1, 2):
        places = [times * below, some.size - 1 - times * above]
        yield np.partition(some.reshape(-1), places)[places]


def _range_of(some: np.ndarray) -> np.ndarray:
    """The darkest and the brightest sample but for outliers."""
    beyond = int(OUTLIERS * some.size)
    places = [beyond, some.size - 1 - beyond]
    return np.partition(some.reshape(-1), places)[places]
