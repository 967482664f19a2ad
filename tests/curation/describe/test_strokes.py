"""How plain a picture is, and how much of the rest is strokes: by hand, by a plain loop, on drawn pages."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from curation.describe.strokes import measure_ground


def grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels.astype(np.uint8)[:, :, None], 3, axis=2)


def test_by_hand() -> None:
    page = np.full((10, 100), 200)
    assert measure_ground(grey(page)) == (1.0, 0.0)
    page[:, 10:13] = 0  # a stroke of 3 px
    page[:, 40:60] = 0  # a block of 20 px
    assert measure_ground(grey(page)) == (0.77, 3 / 23)
    page[:, 40:60] = 195  # within 8 levels: as good as the ground
    assert measure_ground(grey(page)) == (0.97, 1.0)
    page[:, 40:60] = 170  # within 40, not within 8
    assert measure_ground(grey(page)) == (0.77, 1.0)


def test_no_plain_ground_no_strokes() -> None:
    stripes = np.zeros((8, 90))
    stripes[:, ::3] = 100
    stripes[:, 1::3] = 200
    assert measure_ground(grey(stripes)) == (pytest.approx(1 / 3), 0.0)


def test_a_speck_is_no_text() -> None:
    page = np.full((64, 100), 250)
    page[5, 5] = 0
    share, strokes = measure_ground(grey(page))
    assert share == 1 - 1 / 6400
    assert strokes == 0.0


def reference(pixels: np.ndarray) -> tuple[float, float]:
    """The same in words: every pixel of every line looked at by itself."""
    height, width = pixels.shape[:2]
    num = min(64, height)
    lines = [pixels[(2 * i + 1) * height // (2 * num)] for i in range(num)]
    levels = [[int(v) for v in np.asarray(Image.fromarray(line[None]).convert("L"))[0]] for line in lines]
    flat = [v for line in levels for v in line]

    def commonest(reach: int) -> tuple[int, int]:
        counts = [sum(abs(v - level) <= reach for v in flat) for level in range(256)]
        return counts.index(max(counts)), max(counts)

    uniform = commonest(8)[1] / len(flat)
    ground, num_ground = commonest(40)
    longest = max(4, int(0.02 * max(height, width)))
    strokes = 0
    for line in levels:
        run = 0
        for v in [*line, ground]:
            if abs(v - ground) > 40:
                run += 1
                continue
            strokes += run if run <= longest else 0
            run = 0
    if num_ground * 2 < len(flat) or num_ground == len(flat) or strokes < 0.005 * len(flat):
        return uniform, 0.0
    return uniform, strokes / (len(flat) - num_ground)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 90), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_same_as_a_plain_loop(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    pixels[rng.random((height, width)) < rng.random()] = rng.integers(0, 256, 3)
    assert measure_ground(pixels) == reference(pixels)


def draw_page(seed: int, *, is_dark: bool, size: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    paper, ink = ((24, 26, 30), (214, 216, 220)) if is_dark else ((250, 248, 242), (30, 30, 34))
    page = Image.new("RGB", (480, 640), paper)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size)
    for top in range(30, 600, int(1.5 * size)):
        words = ["".join(chr(97 + c) for c in rng.integers(0, 26, rng.integers(2, 9))) for _ in range(9)]
        draw.text((30, top), " ".join(words), font=font, fill=ink)
    return np.asarray(page)


def draw_scene(seed: int) -> np.ndarray:
    """A plain sky with some solid things in front of it."""
    rng = np.random.default_rng(seed)
    scene = Image.new("RGB", (480, 320), tuple(rng.integers(120, 255, 3).tolist()))
    draw = ImageDraw.Draw(scene)
    for _ in range(6):
        x, y, w, h = rng.integers((0, 100, 40, 40), (400, 280, 160, 120)).tolist()
        draw.ellipse((x, y, x + w, y + h), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return np.asarray(scene)


@pytest.mark.parametrize("is_dark", [False, True])
@pytest.mark.parametrize("size", [11, 16, 24])
def test_pages_are_strokes_and_scenes_are_not(size: int, is_dark: bool) -> None:
    assert measure_ground(draw_page(size, is_dark=is_dark, size=size))[1] > 0.85
    assert measure_ground(draw_scene(size))[1] < 0.3
