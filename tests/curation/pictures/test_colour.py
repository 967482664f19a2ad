"""Pictures of any mode become honest RGB, the right way up."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from curation.pictures.colour import ORIENTATION_TAG, lay_on_ground, orientation_of, to_rgb, turn_upright

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "YCbCr", "HSV"])
def test_plain_modes_are_as_pillow_converts_them(mode: str) -> None:
    image = Image.fromarray(RNG.integers(0, 256, (7, 9, 3), np.uint8)).convert(mode)
    found = to_rgb(image)
    assert found is not None
    assert np.array_equal(found[0], np.asarray(image.convert("RGB")))
    assert found[1] == ()
    assert found[0].flags.writeable


def test_what_has_no_honest_rgb_has_none() -> None:
    assert to_rgb(Image.new("LAB", (4, 4))) is None
    assert to_rgb(Image.fromarray(np.full((4, 4), np.nan, np.float32))) is None


def test_sixteen_bits_are_taken_by_the_range_in_use() -> None:
    ramp = np.linspace(0, 4095, 256).astype(np.uint16).reshape(16, 16)
    found = to_rgb(Image.fromarray(ramp))
    assert found is not None
    pixels, said = found
    assert np.array_equal(pixels[..., 0], (ramp >> 4).astype(np.uint8))
    assert said == ("levels_from_12_bits",)
    floats = to_rgb(Image.fromarray((ramp / 4095).astype(np.float32)))
    assert floats is not None
    assert np.abs(floats[0][..., 0].astype(int) - ramp / 4095 * 255).max() <= 1


def _rgba(colour: tuple[int, int, int], opacity: np.ndarray) -> Image.Image:
    pixels = np.zeros((*opacity.shape, 4), np.uint8)
    pixels[..., :3] = colour
    pixels[..., 3] = opacity
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("colour", "level", "said"),
    [((0, 0, 0), 255, ()), ((255, 255, 255), 0, ("laid_on_black",)), ((255, 0, 0), 255, ())],
)
def test_strokes_stay_visible(colour: tuple[int, int, int], level: int, said: tuple[str, ...]) -> None:
    opacity = np.zeros((32, 32), np.uint8)
    opacity[8:12] = 255
    found = to_rgb(_rgba(colour, opacity))
    assert found is not None
    assert found[0][0, 0].tolist() == [level] * 3
    assert found[0][9, 9].tolist() == list(colour)
    assert found[1] == said


@pytest.mark.parametrize(("opacity", "said"), [(0, ("alpha_ignored",)), (1, ("alpha_ignored",))])
def test_opacity_that_nobody_filled_in_is_none(opacity: int, said: tuple[str, ...]) -> None:
    colours = RNG.integers(0, 256, (8, 8, 3), np.uint8)
    image = Image.fromarray(np.dstack([colours, np.full((8, 8), opacity, np.uint8)]))
    pixels, told = lay_on_ground(image.size, image.crop)
    assert np.array_equal(pixels, colours)
    assert told == said


def test_opacity_of_one_bit_is_stretched() -> None:
    opacity = np.zeros((8, 8), np.uint8)
    opacity[:4] = 1
    pixels, told = lay_on_ground((8, 8), _rgba((10, 20, 30), opacity).crop)
    assert told == ("alpha_stretched",)
    assert pixels[0, 0].tolist() == [10, 20, 30]
    assert pixels[7, 7].tolist() == [255] * 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turn_is_pillows(orientation: int) -> None:
    pixels = RNG.integers(0, 256, (5, 8, 3), np.uint8)
    image = Image.fromarray(pixels)
    image.getexif()[ORIENTATION_TAG] = orientation
    assert orientation_of(image.getexif()) == orientation
    turned = turn_upright(pixels, orientation)
    assert np.array_equal(turned, np.asarray(ImageOps.exif_transpose(image)))
    assert turned.flags.c_contiguous


@pytest.mark.parametrize("value", [0, 9, "6", None])
def test_an_orientation_that_is_none_is_upright(value: object) -> None:
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = value
    assert orientation_of(exif) == 1
