"""What a transparent picture is laid on: white as nearly everywhere, unless it could not be seen there."""

import numpy as np
from jaxtyping import Float64, UInt8

VISIBLE_LEVELS = 16  # from the ground, in any colour, of 255: what stands out
# White stays where a third of what is drawn stands out from it, or black would not show eight times as much:
# for a bright photograph with clear corners, and for a white page with a clear margin.
MIN_SHARE = 1 / 3
MIN_GAIN = 8
ON_BLACK = "laid_on_black"
INVISIBLE = "fully_transparent"


def vanishes_on_white(some: UInt8[np.ndarray, "h w 4"], *, num_pixels: int) -> bool | None:
    """Whether what is drawn is (nearly) all white, so that the ground has to be black.

    Measured on the darkest of the three colours of each pixel, since a yellow stroke is as far from white as
    a black one.

    Args:
        some: RGBA, pixels from all over the picture.
        num_pixels: that they stand for, those left out because they are clear with them.

    Returns:
        None where nothing is drawn among these pixels.
    """
    red, green, blue, opacity = some.reshape(-1, 4).T
    darkest = np.minimum(np.minimum(red, green), blue)  # three times as fast as one minimum over an axis
    drawn = np.bincount(darkest, weights=opacity, minlength=256)  # sums of integers, and so exact
    if not drawn.any():
        return None
    if drawn[: 256 - VISIBLE_LEVELS].sum() >= MIN_SHARE * drawn.sum():
        return False
    levels, total = np.arange(256.0), 255.0 * num_pixels
    return _spread(drawn, levels, total) > MIN_GAIN * _spread(drawn, 255 - levels, total)


def _spread(drawn: Float64[np.ndarray, "256"], contrast: Float64[np.ndarray, "256"], total: float) -> float:
    """Variance of the contrast with a ground over the whole picture; the bare ground's own is zero."""
    mean = float((drawn * contrast).sum()) / total
    return float((drawn * contrast**2).sum()) / total - mean**2
