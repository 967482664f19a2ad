"""The miniature of a picture: what is compared where its perceptual hash knows too little."""

import hashlib

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from curation.search.miniatures import DIGEST_BYTES, FINE, PLAIN, SIDE_CELLS

# Hashes are asked from `phash.MIN_CERTAIN_BITS` certain bits on, miniatures are made below this many. Between
# the two a picture has both, so that a copy is found although re-encoding adds or takes some certain bits.
MAKE_BELOW_BITS = 60

NUM_LINES = 64
# Contrast that the cells do not show, in changes from black to white along a line: a share of what they show
# (thin lines lose most of theirs), and half a change.
FINE_SHARE = 8
FINE_CHANGES = 0.5


def make_miniature(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """The miniature of a picture, as `curation.search.miniatures` compares it.

    Stripes, boards and noise that are finer than a cell leave nothing in it. A picture whose contrast along
    64 rows and 64 columns is far from that of its miniature has, instead, a digest of its pixels: only equal
    ones are copies of it.

    Args:
        pixels: RGB, uint8, (h, w, 3), upright, as decoded.

    Returns:
        785 bytes.
    """
    small = np.array(Image.fromarray(pixels).resize((SIDE_CELLS, SIDE_CELLS), Image.Resampling.BOX))
    is_fine = any(
        _changes(pixels, axis) > FINE_SHARE * _changes(small, axis) + FINE_CHANGES for axis in (0, 1)
    )
    digest = bytes(DIGEST_BYTES)
    if is_fine:
        size = np.array(pixels.shape, np.int64).tobytes()
        data = np.ascontiguousarray(pixels).data
        digest = hashlib.blake2b(data, digest_size=DIGEST_BYTES, key=size).digest()
    return bytes([FINE if is_fine else PLAIN]) + small.tobytes() + digest


def _changes(pixels: UInt8[np.ndarray, "h w 3"], axis: int) -> float:
    """How often a line along an axis goes from black to white, in the mean over some lines."""
    lines = pixels if axis == 1 else pixels.swapaxes(0, 1)
    num = min(NUM_LINES, len(lines))
    chosen = np.ascontiguousarray(lines[(2 * np.arange(num) + 1) * len(lines) // (2 * num)])
    steps = np.abs(np.diff(chosen.astype(np.int16), axis=1))
    return int(steps.max(axis=2).sum(dtype=np.int64)) / (255 * num)
