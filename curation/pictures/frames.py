"""Animations whose first frame shows nothing: the next that does, for no more than a large picture costs."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from curation.pictures.colour import Rgb, to_rgb
from curation.pictures.levels import MIN_LEVELS

ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
FIRST_BLANK = "first_frame_blank"
MAX_FRAMES = 16  # a fade from black is seldom longer, and each costs a decode


def first_that_shows(image: Image.Image, first: Rgb, *, max_pixels: int) -> Rgb:
    """The first frame, or, where it is black, clear or of any one colour, the next that is not.

    Animations fade in from black, and some players are given an empty frame to begin with: taken by the first
    frame they would all be copies of one blank square.

    Args:
        image: loaded, at its first frame.
        max_pixels: of all frames together that are looked at.

    Returns:
        Pixels and warnings; of the first frame, and a warning, where those looked at show nothing.
    """
    if image.format not in ANIMATED or not _is_blank(first[0]) or not getattr(image, "is_animated", False):
        return first
    num_frames = min(MAX_FRAMES, max_pixels // (image.width * image.height))
    made = next((made for made in _frames_behind(image, num_frames) if not _is_blank(made[0])), first)
    return made[0], (*made[1], FIRST_BLANK)


def _frames_behind(image: Image.Image, num_frames: int) -> Iterator[Rgb]:
    for number in range(1, num_frames):
        try:
            image.seek(number)
            image.load()
        except MemoryError:
            raise
        except Exception:  # there are no more, or damaged ones, and the first stands as it would alone
            return
        made = to_rgb(image)
        if made is not None:
            yield made


def _is_blank(pixels: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether no two pixels differ by as much as can be seen."""
    for part in (pixels[:: max(1, len(pixels) // 16)], pixels):  # a few rows tell of nearly every picture
        if (np.ptp(part, axis=(0, 1)) >= MIN_LEVELS).any():
            return False
    return True
