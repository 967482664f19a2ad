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
    assert max(size) == side
    assert min(size) == max(1, int(np.floor(min(width, height) * side / max(width, height) + 0.5)))


def test_shrink_scales_and_says_so() -> None:
    y, x = np.mgrid[:300, :400]
    pixels = np.stack([x * 255 // 400, y * 255 // 300, (x + y) % 256], axis=-1).astype(np.uint8)
    data, ext, edits = edit.shrink(pixels, original_size=(400, 300), max_side_px=100, jpeg_quality=95)
    assert (ext, edits) == ("jpg", ["resized from 400x300 to 100x75 px", "encoded as JPEG of quality 95"])
    again = edit.shrink(pixels.copy(), original_size=(400, 300), max_side_px=100, jpeg_quality=95)
    assert (data, ext, edits) == again
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (100, 75), "RGB")
        assert not image.getexif()
        got = np.asarray(image).astype(int)
    reference = np.asarray(Image.fromarray(pixels).resize((100, 75), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(got - reference)[..., :2].mean() < 3


def test_small_pictures_need_no_shrinking() -> None:
    assert not edit.needs_shrink(100, 50, max_side_px=100)
    assert edit.needs_shrink(50, 101, max_side_px=100)
    assert not edit.needs_shrink(50_000, 101, max_side_px=None)
    small = np.zeros((8, 9, 3), np.uint8)
    data, _, edits = edit.shrink(small, original_size=(9, 8), max_side_px=100, jpeg_quality=50)
    assert edits == ["encoded as JPEG of quality 50"]
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (9, 8)


def test_a_picture_that_was_decoded_smaller_is_told_by_its_own_size() -> None:
    scaled = np.zeros((600, 800, 3), np.uint8)
    data, _, edits = edit.shrink(scaled, original_size=(1600, 1200), max_side_px=512, jpeg_quality=90)
    assert edits[0] == "resized from 1600x1200 to 512x384 px"
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (512, 384)
    just_so = np.zeros((48, 48, 3), np.uint8)
    _, _, edits = edit.shrink(just_so, original_size=(96, 96), max_side_px=48, jpeg_quality=90)
    assert edits[0] == "resized from 96x96 to 48x48 px"
