"""Make a picture smaller for its shard. Pure, and the same bytes for the same pixels.

Pixels come in decoded, upright and in honest RGB, so that one decoder in the whole program decides what an
image looks like; what goes out is a JPEG without metadata.
"""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def needs_shrink(width: int, height: int, *, max_side_px: int | None) -> bool:
    """Whether a picture is larger than asked for; one that is not keeps its original bytes."""
    return max_side_px is not None and max(width, height) > max_side_px


def shrunk_size(width: int, height: int, *, max_side_px: int) -> tuple[int, int]:
    """Width and height (px) with the longer side at `max_side_px`, the ratio kept to the nearest pixel."""
    longer = max(width, height)
    # Integers only: a float product may fall on either side of a half.
    return (
        max(1, (2 * width * max_side_px + longer) // (2 * longer)),
        max(1, (2 * height * max_side_px + longer) // (2 * longer)),
    )


def shrink(
    pixels: UInt8[np.ndarray, "height width 3"],
    *,
    original_size: tuple[int, int],
    max_side_px: int,
    jpeg_quality: int,
) -> tuple[bytes, str, list[str]]:
    """Scale a picture down to `max_side_px` and encode it again.

    Args:
        pixels: upright RGB, 0–255; may be smaller than the original, as a scaled decode leaves them.
        original_size: width and height of the picture as it came (px); its shape decides the new one's.
        max_side_px: the longer side of what comes out (px); a smaller picture is encoded at its size.
        jpeg_quality: 1–100.

    Returns:
        The new file's bytes, its extension, and what was done, for `edits` in KEY.json.
    """
    size = original_size
    edits = []
    if needs_shrink(*size, max_side_px=max_side_px):
        size = shrunk_size(*size, max_side_px=max_side_px)
        edits.append("resized from {}x{} to {}x{} px".format(*original_size, *size))
    image = Image.fromarray(pixels)
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    # 4:4:4: at a reduced size the colour that subsampling throws away is no longer redundant.
    out = io.BytesIO()
    image.save(out, "JPEG", quality=jpeg_quality, subsampling=0, optimize=False)
    edits.append(f"encoded as JPEG of quality {jpeg_quality}")
    return out.getvalue(), "jpg", edits
