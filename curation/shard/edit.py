"""Make a picture smaller for its shard. Pure, and the same bytes for the same pixels.

Pixels come in decoded, upright and in honest RGB, so that one decoder in the whole program decides what an
image looks like; what goes out is a JPEG without metadata.
"""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def shrunk_size(width: int, height: int, *, max_side_px: int | None) -> tuple[int, int]:
    """Width and height (px), the longer side at most `max_side_px`, the ratio kept to the nearest pixel."""
    longer = max(width, height)
    if max_side_px is None or longer <= max_side_px:
        return width, height
    # Integers only: a float product may fall on either side of a half.
    return (
        max(1, (2 * width * max_side_px + longer) // (2 * longer)),
        max(1, (2 * height * max_side_px + longer) // (2 * longer)),
    )


def shrink(pixels: UInt8[np.ndarray, "height width 3"], size: tuple[int, int], *, jpeg_quality: int) -> bytes:
    """Scale a picture to a size and encode it again, as a JPEG.

    Args:
        pixels: upright RGB, 0–255; a scaled decode may have left them smaller than the original.
        size: width and height of what comes out (px).
        jpeg_quality: 1–100.
    """
    image = Image.fromarray(pixels)
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    # 4:4:4: at a reduced size the colour that subsampling throws away is no longer redundant.
    out = io.BytesIO()
    image.save(out, "JPEG", quality=jpeg_quality, subsampling=0, optimize=False)
    return out.getvalue()
