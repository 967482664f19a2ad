"""The miniature of a picture: what is compared where its perceptual hash knows too little."""

import hashlib
import math

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from curation.search.miniatures import DIGEST_BYTES, FINE, PLAIN, SIDE_CELLS, contrast

# Hashes are asked from `phash.MIN_CERTAIN_BITS` certain bits on, miniatures are made below this many. Between
# the two a picture has both, so that a copy is found although re-encoding adds or takes some certain bits.
MAKE_BELOW_BITS = 60

# Squared levels that a cell may vary by in itself, beside its contrast to the cells around it.
PLAIN_VARIANCE = 4.0
# What a JPEG leaves beside an edge, as one part in so many of the range of levels within a block of colour.
RIPPLE_SHARE = 32
BLOCK_PIXELS = 16
# A picture of so few levels may be a mask of numbered classes, or a page hardly seen: what re-encoding
# changes is too much of it.
MAX_FAINT_LEVELS = 20
STRIP_PIXELS = 4_000_000  # larger pictures are measured a row of cells at a time, which bounds the memory


def make_miniature(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """The miniature of a picture, as `curation.search.miniatures` compares it.

    The cells must show what there is: where one varies more within itself than it differs from those around
    it, as in stripes, noise, thin lines and small letters, other pictures may have the same colours. So they
    may where all levels lie close together, yet differ. Then a digest of all pixels stands beside them, and
    only equal ones are a copy.

    Args:
        pixels: RGB, uint8, (h, w, 3), upright, as decoded.

    Returns:
        3,089 bytes.
    """
    small = np.array(Image.fromarray(pixels).resize((SIDE_CELLS, SIDE_CELLS), Image.Resampling.BOX))
    ripples = _range_around(small, pixels.shape[:2]) / RIPPLE_SHARE
    allowed = np.maximum(contrast(small[None])[0], ripples) ** 2 + PLAIN_VARIANCE
    levels = np.ptp(pixels, axis=(0, 1)).max()
    is_fine = bool(0 < levels <= MAX_FAINT_LEVELS or (_variances(pixels) > allowed).any())
    digest = bytes(DIGEST_BYTES)
    if is_fine:
        size = np.array(pixels.shape, np.int64).tobytes()
        data = np.ascontiguousarray(pixels).data
        digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES, key=size).digest()
    return bytes([FINE if is_fine else PLAIN]) + small.tobytes() + digest


def _range_around(small: UInt8[np.ndarray, "c c 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "c c 1"]:
    """The range of levels of each cell and those within a block of it, at least the eight around it.

    Of the channel of most range: a JPEG keeps brightness and two colours, so an edge of one ripples in all.
    """
    found = (small, small)
    for axis in range(2):
        reach = min(max(math.ceil(BLOCK_PIXELS * SIDE_CELLS / size[axis]), 1), SIDE_CELLS - 1)
        width = [(reach, reach) if axis == k else (0, 0) for k in range(3)]
        lowest, highest = (
            np.lib.stride_tricks.sliding_window_view(np.pad(cells, width, mode="edge"), 2 * reach + 1, axis)
            for cells in found
        )
        found = lowest.min(axis=-1), highest.max(axis=-1)
    spread: np.ndarray = (found[1] - found[0]).max(axis=-1, keepdims=True)
    return spread


def _variances(pixels: UInt8[np.ndarray, "h w 3"]) -> Float64[np.ndarray, "c c 3"]:
    """Of the levels within each cell."""
    height, width = pixels.shape[:2]
    num_strips = 1 if height * width <= STRIP_PIXELS else SIDE_CELLS
    size = (SIDE_CELLS, SIDE_CELLS // num_strips)
    found = np.empty((num_strips, *size[::-1], 3))
    for number in range(num_strips):
        top, bottom = number * height / num_strips, (number + 1) * height / num_strips
        first, last = math.floor(top), min(math.ceil(bottom), height)
        box = (0, top - first, width, min(bottom, height) - first)
        for channel in range(3):
            levels = pixels[first:last, :, channel].astype(np.float32)
            mean, square = (
                np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BOX, box)).astype(np.float64)
                for plane in (levels, levels * levels)
            )
            found[number, ..., channel] = square - mean * mean
    return found.reshape(SIDE_CELLS, SIDE_CELLS, 3)
