"""Colour of 16 bits: the low bytes count where the high ones tell too little."""

import io

import numpy as np
import pytest
from pictures import png_16
from PIL import Image

from curation.pictures.deep import is_deep, to_rgb_of_both_bytes
from curation.pictures.formats import ALLOWED


def _ramp(least: int, most: int, bands: int) -> np.ndarray:
    levels = np.linspace(least, most, 256).astype(np.uint16).reshape(16, 16)
    return np.stack([levels] * bands, axis=2)


def _rgb(samples: np.ndarray, **options: tuple[int, ...]) -> tuple[np.ndarray, tuple[str, ...]] | None:
    data = png_16(samples, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert is_deep(image)
        image.load()
        return to_rgb_of_both_bytes(image, data, formats=ALLOWED)


def test_a_picture_of_eight_bits_is_not_deep() -> None:
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "PNG")
    with Image.open(io.BytesIO(out.getvalue())) as image:
        assert not is_deep(image)


def test_where_the_high_bytes_tell_enough_they_are_taken() -> None:
    assert _rgb(_ramp(0, 65535, 3)) is None


@pytest.mark.parametrize("bits", [10, 12])
def test_fewer_bits_than_the_container_has(bits: int) -> None:
    samples = _ramp(0, (1 << bits) - 1, 3)
    found = _rgb(samples)
    assert found is not None
    assert np.array_equal(found[0], (samples >> (bits - 8)).astype(np.uint8))
    assert found[1] == (f"levels_from_{bits}_bits",)


def test_a_narrow_range_is_stretched() -> None:
    found = _rgb(_ramp(30_000, 30_300, 3))
    assert found is not None
    assert (found[0].min(), found[0].max()) == (0, 255)
    assert found[1] == ("levels_stretched",)


@pytest.mark.parametrize("bands", [2, 4])
def test_opacity_lets_the_ground_through(bands: int) -> None:
    samples = _ramp(0, 1023, bands)
    samples[..., -1] = 65535
    samples[:4, :, -1] = 0
    found = _rgb(samples)
    assert found is not None
    assert (found[0][:4] == 255).all()
    assert np.array_equal(found[0][4:, :, 0], (samples[4:, :, 0] >> 2).astype(np.uint8))


def test_a_colour_may_stand_for_clear() -> None:
    samples = _ramp(0, 65535, 3)
    samples[:2] = 1234
    found = _rgb(samples, clear=(1234, 1234, 1234))
    assert found is not None
    assert (found[0][:2] == 255).all()
    assert np.array_equal(found[0][2:], (samples[2:] >> 8).astype(np.uint8))
