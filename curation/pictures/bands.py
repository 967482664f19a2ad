"""Pictures a band of rows at a time: a large one is not held in memory once more for every step."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

BAND_PX = 1 << 20  # most pixels of a band: 16-bit colour takes about 50 bytes of each on the way
GRID_PX = 1 << 17  # most pixels of a grid, about: to look at all of a picture takes as long as to decode it
WHOLE_PX = 1 << 20  # up to here a grid is taken of all pixels, beyond row by row

Box = tuple[int, int, int, int]  # left, top, right, bottom, px


def part_of(image: Image.Image, box: Box) -> Image.Image:
    """A part of a picture; the picture itself, uncopied, where that is all of it."""
    return image if box == (0, 0, *image.size) else image.crop(box)


def in_bands(
    size: tuple[int, int], work: Callable[[Box], UInt8[np.ndarray, "_ _ 3"]]
) -> UInt8[np.ndarray, "h w 3"]:
    """Make RGB pixels band by band.

    Args:
        size: width and height, px.
        work: gives the pixels of a box, writable.
    """
    width, height = size
    boxes = bands_of(size)
    if len(boxes) == 1:
        return work(boxes[0])
    pixels = np.empty((height, width, 3), np.uint8)
    for box in boxes:
        pixels[box[1] : box[3]] = work(box)
    return pixels


def bands_of(size: tuple[int, int]) -> list[Box]:
    """Boxes of all of a picture's width, from the top down."""
    width, height = size
    rows = max(1, BAND_PX // width)
    return [(0, top, width, min(top + rows, height)) for top in range(0, height, rows)]


def extremes(
    size: tuple[int, int], read: Callable[[Box], np.ndarray], *, axis: tuple[int, int] | None = None
) -> tuple[Any, Any]:
    """The least and the greatest of all samples, or over (0, 1) of each channel; NaN where there is one."""
    found = [(part.min(axis=axis), part.max(axis=axis)) for part in map(read, bands_of(size))]
    return np.min([least for least, _ in found], axis=0), np.max([most for _, most in found], axis=0)


def grid(size: tuple[int, int], read: Callable[[Box], np.ndarray]) -> np.ndarray:
    """Samples over an even grid, up to about a hundred thousand; all where there are no more.

    Args:
        size: width and height, px.
        read: gives the samples of a box, (h, w) or (h, w, bands).
    """
    width, height = size
    step = max(1, math.ceil(math.sqrt(width * height / GRID_PX)))
    if step <= 1 or width * height <= WHOLE_PX:
        return read((0, 0, width, height))[::step, ::step]
    return np.stack([read((0, top, width, top + 1))[0, ::step] for top in range(0, height, step)])
