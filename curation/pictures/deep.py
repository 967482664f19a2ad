"""Colour of 16 bits a sample. Pillow keeps the high byte of it; the low one is fetched where it matters."""

import io
import sys
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, ImageFile

from curation.pictures.bands import Box, extremes, grid, in_bands, part_of
from curation.pictures.colour import Rgb, lay_on_ground
from curation.pictures.levels import scaling_of, shows_little

# Pillow has no mode for such colour. Told that the bytes stand the other way round, it keeps the other byte.
OTHER_ORDER = {
    ";16B": ";16L",
    ";16L": ";16B",
    ";16N": ";16B" if sys.byteorder == "little" else ";16L",
}
GREY_ALPHA = "LA;16B"  # has no other order; read as four bytes a pixel it gives all of them
UNSURE_ALPHA = 1 << 12  # opacity that never comes near full: of fewer bits, as the colours are

Opacity = Callable[[np.ndarray], np.ndarray]  # of samples, (h, w, bands), as levels, (h, w)


def is_deep(image: Image.Image) -> bool:
    """Whether an opened picture that is not loaded yet has two bytes a sample of which one will be lost."""
    modes = [_raw_mode(tile) for tile in _tiles(image)]
    if image.mode not in ("RGB", "RGBA", "CMYK") or not modes:
        return False
    return all(mode == GREY_ALPHA or (mode[-4:] in OTHER_ORDER and "a" not in mode) for mode in modes)


def to_rgb_of_both_bytes(image: Image.Image, data: bytes, *, formats: tuple[str, ...]) -> Rgb | None:
    """RGB of a picture of 16-bit colour by the range that its samples use.

    Args:
        image: loaded, and deep.

    Returns:
        Pixels and warnings; None where the high bytes tell enough: not where one colour stands for clear.
    """
    has_alpha, size, clear = image.mode == "RGBA", image.size, _clear_colour(image)
    num_colours = 3 if has_alpha else None  # all of them
    high = grid(size, lambda box: np.asarray(part_of(image, box)))
    if clear is None and not shows_little(high[..., :num_colours]):
        return None
    low, is_grey = _with_other_bytes(data, formats)

    def read(box: Box) -> UInt16[np.ndarray, "h w bands"]:
        return _joined(*(np.asarray(part_of(picture, box)) for picture in (image, low)), is_grey=is_grey)

    def colours(box: Box) -> UInt16[np.ndarray, "h w bands"]:
        return read(box)[..., :num_colours]

    least, most = extremes(size, colours)
    scaling = scaling_of(grid(size, colours), least=int(least), most=int(most))
    if clear is None and not has_alpha:
        return in_bands(size, lambda box: _rgb(scaling(read(box)), image.mode)), scaling.said
    opacity = _opacity_by_alpha(size, read) if clear is None else _opacity_by_key(clear)

    def rgba(box: Box) -> Image.Image:
        samples = read(box)
        return Image.fromarray(np.dstack([scaling(samples[..., :3]), opacity(samples)]))

    pixels, on_ground = lay_on_ground(size, rgba)
    return pixels, (*scaling.said, *on_ground)


def _opacity_by_alpha(size: tuple[int, int], read: Callable[[Box], np.ndarray]) -> Opacity:
    most = int(extremes(size, lambda box: read(box)[..., 3])[1])
    shift = 8 if most >= UNSURE_ALPHA else max(0, most.bit_length() - 8)
    return lambda samples: (samples[..., 3] >> shift).astype(np.uint8)


def _opacity_by_key(clear: UInt16[np.ndarray, "3"]) -> Opacity:
    return lambda samples: np.where((samples == clear).all(axis=2), 0, 255).astype(np.uint8)


def _rgb(levels: UInt8[np.ndarray, "h w bands"], mode: str) -> UInt8[np.ndarray, "h w 3"]:
    return levels if mode == "RGB" else np.array(Image.fromarray(levels, mode).convert("RGB"))


def _clear_colour(image: Image.Image) -> UInt16[np.ndarray, "3"] | None:
    """The colour of a PNG without alpha that stands for clear, of 16 bits as its samples."""
    clear = image.info.get("transparency")
    return np.array(clear, np.uint16) if image.mode == "RGB" and isinstance(clear, tuple) else None


def _with_other_bytes(data: bytes, formats: tuple[str, ...]) -> tuple[Image.Image, bool]:
    """The picture decoded for its low bytes; and whether it is grey and alpha, with all four bytes there."""
    with Image.open(io.BytesIO(data), formats=formats) as image:
        tiles = _tiles(image)
        image.tile = [_other_way(tile) for tile in tiles]
        image.load()
        return image, any(_raw_mode(tile) == GREY_ALPHA for tile in tiles)


def _joined(
    high: UInt8[np.ndarray, "h w bands"], low: UInt8[np.ndarray, "h w bands"], *, is_grey: bool
) -> UInt16[np.ndarray, "h w bands"]:
    if is_grey:  # `low` is grey high, grey low, alpha high, alpha low
        pairs = low[..., 0::2].astype(np.uint16) << 8 | low[..., 1::2]
        return np.asarray(pairs[..., [0, 0, 0, 1]])
    return np.asarray(high.astype(np.uint16) << 8 | low)


def _tiles(image: Image.Image) -> list[ImageFile._Tile]:
    return list(getattr(image, "tile", ()))


def _raw_mode(tile: ImageFile._Tile) -> str:
    mode = tile.args[0] if isinstance(tile.args, tuple) else tile.args
    return mode if isinstance(mode, str) else ""


def _other_way(tile: ImageFile._Tile) -> ImageFile._Tile:
    mode = _raw_mode(tile)
    other = "RGBA" if mode == GREY_ALPHA else mode[:-4] + OTHER_ORDER[mode[-4:]]
    return tile._replace(args=(other, *tile.args[1:]) if isinstance(tile.args, tuple) else other)
