"""Perceptual hash: the 64 signs of a picture's lowest frequencies, with the bits of `imagehash.phash`.

A hash says how much it knows. A bit is *certain* where its coefficient lies farther from the median than
re-encoding or resizing moves it. Of 8,741 photographs all have 43 certain bits or more, and all but 5 have
52; a flat picture has 1, and stripes, rainbows and flags have 4 to 32: the rest of their bits is the same for
all of them. A hash of fewer than `MIN_CERTAIN_BITS` is *poor*: that two of these are near says nothing.
"""

import numpy as np
from jaxtyping import Float64, Int8, UInt8, UInt64
from PIL import Image

SIDE_PX = 32
HASH_SIDE = 8  # 8 x 8 of the 32 x 32 frequencies make 64 bits
NUM_BITS = HASH_SIDE**2

# Coefficients lie on a grid this fine before they are compared: rounding noise (1e-11) of a flat or symmetric
# picture, whose true coefficients equal their median 0, must not decide bits.
GRID = 1e-6

# Of a coefficient, to which each of the 32 x 32 pixels adds up to 4 times its level. Of 250 photographs a
# JPEG of quality 45 flips 1 in 95 of the bits that are 128 to 256 from the median, and 2 in 9 of those at 32
# to 64; a copy of half the side 1 in 290, and 1 in 21.
CERTAIN_MARGIN = 128.0
MIN_CERTAIN_BITS = 52


def grey32(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "32 32"]:
    """Shrink a picture to the 32 x 32 grey levels that are hashed, exactly as `imagehash` does.

    Args:
        pixels: RGB, uint8, (h, w, 3), upright.

    Returns:
        ITU-R 601-2 luma, uint8, (32, 32).
    """
    grey = Image.fromarray(pixels).convert("L")
    return np.array(grey.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS))


def phash(grey: UInt8[np.ndarray, "n 32 32"]) -> UInt64[np.ndarray, " n"]:
    """Hash pictures: which of the 8 x 8 lowest DCT coefficients exceed their median.

    Bit 63, the highest, is the constant term (row 0, column 0), bit 62 row 0, column 1 (one half wave from
    left to right), bit 0 row 7, column 7; so `f"{hash:016x}"` is `str(imagehash.phash(image))`.

    Args:
        grey: uint8, (n, 32, 32), from `grey32`.

    Returns:
        uint64, (n,); a row's hash does not depend on the other rows.

    Source: N. Krawetz, "Looks Like It" (2011), as in imagehash.phash(hash_size=8, highfreq_factor=4).
    """
    bits = _above_median(grey) > 0
    return np.packbits(bits, axis=1, bitorder="big").view(">u8").astype(np.uint64).reshape(len(grey))


def certain_bits(grey: UInt8[np.ndarray, "n 32 32"]) -> Int8[np.ndarray, " n"]:
    """Count the bits of hashes that re-encoding or resizing would not change.

    Args:
        grey: uint8, (n, 32, 32), from `grey32`.

    Returns:
        int8, (n,), 0 to 64; a row's count does not depend on the other rows.
    """
    is_certain = np.abs(_above_median(grey)) >= CERTAIN_MARGIN / GRID
    num_certain: np.ndarray = is_certain.sum(axis=1)
    return num_certain.astype(np.int8)


def _above_median(grey: UInt8[np.ndarray, "n 32 32"]) -> Float64[np.ndarray, "n 64"]:
    """How far each coefficient lies above their median, in whole multiples of `GRID` or halves of them."""
    basis = _lowest_cosines()
    # One small product a picture, always of one shape: BLAS cannot choose another kernel for another n.
    spectrum = basis @ grey.astype(np.float64) @ basis.T
    spectrum = np.rint(spectrum / GRID).reshape(len(grey), NUM_BITS)
    above: np.ndarray = spectrum - np.median(spectrum, axis=1, keepdims=True)
    return above


def _lowest_cosines() -> Float64[np.ndarray, "8 32"]:
    """Rows 0..7 of the unnormalised DCT-II (scipy.fftpack.dct): 2 cos(pi k (2 x + 1) / 64)."""
    wave, place = np.arange(HASH_SIDE)[:, None], np.arange(SIDE_PX)[None, :]
    return 2.0 * np.cos(np.pi * wave * (2 * place + 1) / (2 * SIDE_PX))
