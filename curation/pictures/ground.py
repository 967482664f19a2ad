"""What a transparent picture is laid on: white as nearly everywhere, unless much of it would vanish."""

import numpy as np
from jaxtyping import Bool, Float64, Integer, UInt8

VISIBLE_LEVELS = 16  # from the ground, in any colour, of 255: what stands out
# White stays where a third of what is drawn stands out from it, or black would not show eight times as much:
# for a bright photograph with clear corners, and for a white page with a clear margin.
MIN_SHARE = 1 / 3
MIN_GAIN = 8
# White strokes next to black or coloured parts: of what is drawn, more than this is a loss. Beside colours
# more is allowed: highlights of a cut-out photograph are usual, and so is white below it. Not sought where
# most is drawn: a photograph with clear corners (an ellipse: 79 %), a page with a clear margin.
MAX_LOSS = 0.05
MAX_HIGHLIGHTS = 0.2
MAX_DRAWN = 0.75
# Clear letters in a white area are lost on white however much is drawn: more than this of a picture is clear
# between drawn pixels that white hides. What is clear outside of all that is drawn is a margin.
MAX_GAPS = 0.002
WHITE, BLACK, GREYS = 255, 0, (128, 64, 192)
ON_BLACK, ON_GREY = "laid_on_black", "laid_on_grey"
INVISIBLE = "fully_transparent"


def ground_of(some: UInt8[np.ndarray, "h w 4"], *, num_pixels: int) -> int | None:
    """The grey level on which most of what is drawn can be seen: white unless something vanishes on it.

    Measured on the darkest of the three colours of each pixel, since a yellow stroke is as far from white as
    a black one; on black, on the brightest.

    Args:
        some: RGBA, pixels from all over the picture.
        num_pixels: that they stand for, those left out because they are clear with them.

    Returns:
        255, 0, or a grey where much would be lost on either; None where nothing is drawn among these pixels.
    """
    red, green, blue, opacity = some.reshape(-1, 4).T
    darkest = np.minimum(np.minimum(red, green), blue)  # three times as fast as one minimum over an axis
    drawn = np.bincount(darkest, weights=opacity, minlength=256)  # sums of integers, and so exact
    if not drawn.any():
        return None
    total, ink = 255.0 * num_pixels, float(drawn.sum())
    seen = float(drawn[: 256 - VISIBLE_LEVELS].sum())
    in_place = darkest.reshape(some.shape[:2])
    if ink - seen > MAX_LOSS * ink and (ink <= MAX_DRAWN * total or _has_gaps(some, in_place, num_lost=1)):
        brightest = np.maximum(np.maximum(red, green), blue)
        lost = {
            grey: float(opacity[_distance(darkest, brightest, grey) < VISIBLE_LEVELS].sum(dtype=np.int64))
            for grey in (BLACK, *GREYS)
        }
        if lost[BLACK] > MAX_LOSS * ink:
            return min(GREYS, key=lost.__getitem__)
        if ink - seen > MAX_HIGHLIGHTS * ink or _has_gaps(some, in_place, num_lost=2):
            return BLACK
    if seen >= MIN_SHARE * ink:
        return WHITE
    levels = np.arange(256.0)
    on_white, on_black = _spread(drawn, 255 - levels, total), _spread(drawn, levels, total)
    return BLACK if on_black > MIN_GAIN * on_white else WHITE


def _has_gaps(some: UInt8[np.ndarray, "h w 4"], darkest: UInt8[np.ndarray, "h w"], *, num_lost: int) -> bool:
    """Whether much is clear between two drawn pixels, side by side or one above the other, lost on white.

    Args:
        some: RGBA, in its places.
        darkest: of the three colours of each.
        num_lost: of the two, at least.
    """
    is_clear = some[..., 3] < VISIBLE_LEVELS
    if some.shape[1] == 1 or not is_clear.any():  # one column: pixels that were picked out of their places
        return False
    is_lost = darkest >= 256 - VISIBLE_LEVELS
    across, down = _between(is_clear, is_lost, num_lost), _between(is_clear.T, is_lost.T, num_lost)
    return float((across | down.T).mean()) > MAX_GAPS


def _between(
    is_clear: Bool[np.ndarray, "h w"], is_lost: Bool[np.ndarray, "h w"], num_lost: int
) -> Bool[np.ndarray, "h w"]:
    """Whether a row has drawn pixels before and behind a clear one, of the nearest that many lost."""
    width = is_clear.shape[1]
    places = np.arange(width)
    before = np.maximum.accumulate(np.where(is_clear, -1, places), axis=1)
    behind = np.minimum.accumulate(np.where(is_clear, width, places)[:, ::-1], axis=1)[:, ::-1]
    framed = np.pad(is_lost, ((0, 0), (1, 1))).astype(np.int8)
    lost = np.take_along_axis(framed, before + 1, 1) + np.take_along_axis(framed, behind + 1, 1)
    return np.asarray(is_clear & (before >= 0) & (behind < width) & (lost >= num_lost))


def _distance(
    darkest: UInt8[np.ndarray, "n"], brightest: UInt8[np.ndarray, "n"], grey: int
) -> Integer[np.ndarray, "n"]:
    """From a grey, in the colour that is farthest from it."""
    return np.maximum(brightest.astype(np.int16) - grey, grey - darkest.astype(np.int16))


def _spread(drawn: Float64[np.ndarray, "256"], contrast: Float64[np.ndarray, "256"], total: float) -> float:
    """Variance of the contrast with a ground over the whole picture; the bare ground's own is zero."""
    mean = float((drawn * contrast).sum()) / total
    return float((drawn * contrast**2).sum()) / total - mean**2
