"""Any picture that Pillow can open, as honest 8-bit RGB, and the right way up."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

ORIENTATION_TAG = 0x0112  # EXIF 2.3, §4.6.4


def to_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"] | None:
    """Convert a loaded picture to RGB.

    Pillow's own `convert("RGB")` clips 16-bit grey to white, truncates 0..1 floats to black and drops
    transparency with whatever colour lies below it. Here 16-bit samples keep their high byte (as Pillow does
    for 16-bit RGB), floats are taken as 0..1 or 0..255 by their range, and transparency is laid over white.
    ICC profiles are ignored.

    Args:
        image: a picture whose pixels are loaded, any mode.

    Returns:
        RGB, uint8, (h, w, 3), writable; None where the mode has no RGB that we could vouch for (LAB, 32-bit
        integers, floats that are not finite or of unknown range).
    """
    if image.mode.startswith("I;16"):
        return _stack_grey((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "F":
        return _float_to_rgb(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return np.array(_over_white(image))
    if image.mode in ("RGB", "RGBX", "L", "1", "P", "CMYK", "YCbCr", "HSV"):
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    return None


def orientation_of(exif: Image.Exif) -> int:
    """The EXIF orientation, 1..8; 1 where it is absent or invalid."""
    value = exif.get(ORIENTATION_TAG, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turn_upright(pixels: UInt8[np.ndarray, "h w 3"], orientation: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """Undo an EXIF orientation (1..8), contiguous; 5 to 8 swap width and height.

    Source: EXIF 2.3, §4.6.4 A (the same turns as Pillow's ImageOps.exif_transpose).
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _over_white(image: Image.Image) -> Image.Image:
    picture = image.convert("RGBA")
    canvas = Image.new("RGB", picture.size, "white")
    canvas.paste(picture, mask=picture.getchannel("A"))
    return canvas


def _float_to_rgb(values: np.ndarray) -> UInt8[np.ndarray, "h w 3"] | None:
    low, high = float(values.min()), float(values.max())  # NaN anywhere makes both NaN
    if not (low >= 0 and high <= 255):
        return None
    scale = 255.0 if high <= 1 else 1.0
    return _stack_grey(np.rint(values * scale).astype(np.uint8))


def _stack_grey(grey: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    return np.repeat(grey[:, :, None], 3, axis=2)
