"""Shrinking: sizes by hand, pixels against Pillow, the same bytes every time."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from curation.shard import edit


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((4000, 3000), 1024, (1024, 768)),
        ((3, 1000), 100, (1, 100)),
        ((1, 9000), 16, (1, 16)),
        ((333, 500), 250, (167, 250)),
    ],
)
def test_sizes_by_hand(size: tuple[int, int], side: int, expected: tuple[int, int]) -> None:
    assert edit.shrunk_size(*size, max_side_px=side) == expected


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(16, 2000))
def test_the_longer_side_becomes_the_one_asked_for(width: int, height: int, side: int) -> None:
    size = edit.shrunk_size(width, height, max_side_px=side)
    if max(width, height) <= side:
        assert size == (width, height)
        return
    assert max(size) == side
    assert min(size) == max(1, int(np.floor(min(width, height) * side / max(width, height) + 0.5)))


def test_shrink_scales_as_pillow_does() -> None:
    y, x = np.mgrid[:300, :400]
    pixels = np.stack([x * 255 // 400, y * 255 // 300, (x + y) % 256], axis=-1).astype(np.uint8)
    data = edit.shrink(pixels, (100, 75), jpeg_quality=95)
    assert data == edit.shrink(pixels.copy(), (100, 75), jpeg_quality=95)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (100, 75), "RGB")
        assert not image.getexif()
        got = np.asarray(image).astype(int)
    reference = np.asarray(Image.fromarray(pixels).resize((100, 75), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(got - reference)[..., :2].mean() < 3


def test_small_pictures_keep_their_size() -> None:
    assert edit.shrunk_size(100, 50, max_side_px=100) == (100, 50)
    assert edit.shrunk_size(50_000, 101, max_side_px=None) == (50_000, 101)


@pytest.mark.parametrize("decoded", [(600, 800), (384, 512)])
def test_a_picture_that_was_decoded_smaller_becomes_what_was_asked_for(decoded: tuple[int, int]) -> None:
    data = edit.shrink(np.zeros((*decoded, 3), np.uint8), (512, 384), jpeg_quality=90)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (512, 384)
