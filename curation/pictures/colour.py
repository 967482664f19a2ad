"""Any picture that Pillow can open, as honest 8-bit RGB, and the right way up."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImagePalette

from curation.pictures.bands import Box, bands_of, extremes, grid, in_bands, part_of
from curation.pictures.ground import (
    BLACK,
    INVISIBLE,
    ON_BLACK,
    ON_GREY,
    VISIBLE_LEVELS,
    WHITE,
    ground_of,
)
from curation.pictures.levels import NOTHING, float_scaling_of, scaling_of

ORIENTATION_TAG = 0x0112  # EXIF 2.3, §4.6.4
SAMPLE_FORMAT_TAG, UNSIGNED = 339, 1  # TIFF 6.0, §19
COLOUR_MAP_TAG = 320
PHOTOMETRIC_TAG, WHITE_IS_ZERO = 262, 0

NO_ALPHA, FEW_BITS_OF_ALPHA = "alpha_ignored", "alpha_stretched"

Read = Callable[[Box], Image.Image]  # of a box of the picture, as RGBA
Rgb = tuple[UInt8[np.ndarray, "h w 3"], tuple[str, ...]]  # with warnings that say what was chosen


def to_rgb(image: Image.Image) -> Rgb | None:
    """Convert a loaded picture to RGB.

    Pillow's own `convert("RGB")` clips 16-bit grey to white, truncates 0..1 floats to black and drops
    transparency with whatever colour lies below it. Here samples of more than 8 bits are taken by the range
    that they use (`levels`), and transparency is laid over the ground on which most can be seen (`ground`).
    ICC profiles are ignored.

    Args:
        image: a picture whose pixels are loaded, any mode.

    Returns:
        RGB, uint8, (h, w, 3), writable, and warnings; None where the mode has no RGB that we could vouch for
        (LAB, floats that are not finite or of unknown range).
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _grey_to_rgb(image)
    said = _mend_palette(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        pixels, on_ground = lay_on_ground(image.size, lambda box: _rgba(part_of(image, box)))
        return pixels, (*said, *on_ground)
    if image.mode in ("RGB", "RGBX", "L", "1", "P", "CMYK", "YCbCr", "HSV"):
        return in_bands(image.size, lambda box: _rgb(part_of(image, box))), said
    return None


def lay_on_ground(size: tuple[int, int], read: Read) -> Rgb:
    """Blend an RGBA picture with the ground that keeps it: white, black for white strokes, grey for both.

    Args:
        size: width and height, px.
        read: gives a box of the picture, as RGBA.

    Returns:
        The pixels, and warnings where the ground is not white, alpha cannot be meant, or nothing is drawn.
    """
    some, mended = grid(size, lambda box: np.asarray(read(box))), NOTHING
    if some[..., 3].max() < VISIBLE_LEVELS:
        read, mended = _mend_alpha(size, read)
        some = grid(size, lambda box: np.asarray(read(box)))
    is_opaque = some[..., 3].min() == 255
    ground = WHITE if is_opaque else ground_of(some, num_pixels=some[..., 3].size)
    if ground is None:  # a grid may have missed all of it
        ground = ground_of(_drawn(size, read), num_pixels=size[0] * size[1])
    level = WHITE if ground is None else ground
    said = {None: (INVISIBLE,), WHITE: (), BLACK: (ON_BLACK,)}.get(ground, (ON_GREY,))

    def blend(box: Box) -> UInt8[np.ndarray, "_ _ 3"]:
        picture = read(box)
        canvas = Image.new("RGB", picture.size, (level,) * 3)
        canvas.paste(picture, mask=picture.getchannel("A"))
        return np.array(canvas)

    return in_bands(size, blend), (*mended, *said)


def orientation_of(exif: Image.Exif) -> int:
    """The EXIF orientation, 1..8; 1 where it is absent or invalid."""
    value = exif.get(ORIENTATION_TAG, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turn_upright(
    pixels: Shaped[np.ndarray, "h w bands"], orientation: int
) -> Shaped[np.ndarray, "_ _ bands"]:
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


def _rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _rgba(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # Pillow knows one way out of it
        image = image.convert("LA")
    return image if image.mode == "RGBA" else image.convert("RGBA")


def _mend_alpha(size: tuple[int, int], read: Read) -> tuple[Read, tuple[str, ...]]:
    """Opacity that nowhere lets anything be seen, as it must be meant.

    All 0 or another constant: a byte that nobody filled in, as in many a BMP with an alpha mask. 0 and 1, or
    a few more: of fewer bits. Taken by the letter, different pictures would be one blank square.
    """
    least, most = extremes(size, lambda box: np.asarray(read(box)), axis=(0, 1))
    opacity = int(most[3])
    if opacity >= VISIBLE_LEVELS or (least == most).all():  # a thin line that a grid missed; or nothing
        return read, NOTHING
    is_constant = least[3] == most[3]
    levels = [255 if is_constant else min(255, level * 255 // opacity) for level in range(256)]

    def mended(box: Box) -> Image.Image:
        picture = read(box).copy()
        picture.putalpha(picture.getchannel("A").point(levels))
        return picture

    return mended, (NO_ALPHA if is_constant else FEW_BITS_OF_ALPHA,)


def _drawn(size: tuple[int, int], read: Read) -> UInt8[np.ndarray, "n 1 4"]:
    """The pixels that are not clear, as a column."""
    bands = (np.asarray(read(box)) for box in bands_of(size))
    return np.concatenate([band[band[..., 3] > 0] for band in bands])[:, None]


def _grey_to_rgb(image: Image.Image) -> Rgb | None:
    is_unsigned = _tag_of(image, SAMPLE_FORMAT_TAG, UNSIGNED) == UNSIGNED
    kind = np.uint32 if image.mode == "I" and is_unsigned else None  # Pillow's own mode is signed

    def read(box: Box) -> np.ndarray:
        samples = np.asarray(part_of(image, box))
        return samples if kind is None else samples.view(kind)

    some, (least, most) = grid(image.size, read), extremes(image.size, read)
    if image.mode == "F":
        scaling = float_scaling_of(some, least=float(least), most=float(most))
    else:
        scaling = scaling_of(some, least=int(least), most=int(most))
    if scaling is None:
        return None
    # Pillow turns these about itself where they have up to 8 bits.
    turn = 255 if _tag_of(image, PHOTOMETRIC_TAG, 1) == WHITE_IS_ZERO else 0
    clear = image.info.get("transparency")
    if not isinstance(clear, int):
        return in_bands(image.size, lambda box: _stack_grey(scaling(read(box)) ^ turn)), scaling.said

    def keyed(box: Box) -> Image.Image:
        samples = read(box)
        grey, opacity = scaling(samples), np.where(samples == clear, 0, 255).astype(np.uint8)
        return Image.fromarray(np.dstack([grey, grey, grey, opacity]))

    pixels, on_ground = lay_on_ground(image.size, keyed)
    return pixels, (*scaling.said, *on_ground)


def _tag_of(image: Image.Image, tag: int, otherwise: int) -> object:
    """A TIFF's tag, the first value of it."""
    found = getattr(image, "tag_v2", {}).get(tag, otherwise)
    return found[0] if isinstance(found, tuple) and found else found


def _mend_palette(image: Image.Image) -> tuple[str, ...]:
    """Palettes of TIFFs have 16 bits a colour; some programs fill in 8, and Pillow takes the high ones."""
    colours = getattr(image, "tag_v2", {}).get(COLOUR_MAP_TAG, ()) if image.mode in ("P", "PA") else ()
    if not colours or not 0 < max(colours) < 256:
        return ()
    image.putpalette(ImagePalette.raw("RGB;L", bytes(colours)))
    return ("levels_from_8_bits",)


def _stack_grey(grey: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    return np.repeat(grey[:, :, None], 3, axis=2)
