"""gist: unit rows, the same in any batch, close for copies and apart for strangers."""

import numpy as np
import pytest
from PIL import Image

from curation.describe.gist import Gist
from curation.pictures.views import View, render


def _scene(seed: int, side: int = 64) -> np.ndarray:
    """A few coloured boxes on a gradient."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((side, side, 3))
    picture += np.linspace(0, 1, side)[:, None, None] * rng.uniform(0, 200, 3)
    for _ in range(6):
        top, left = rng.integers(0, side * 3 // 4, 2)
        picture[top : top + side // 4, left : left + side // 3] = rng.uniform(0, 255, 3)
    return picture.astype(np.uint8)


def test_unit_rows_of_the_promised_length() -> None:
    rows = Gist().embed(np.stack([_scene(seed) for seed in range(20)]))
    assert rows.shape == (20, Gist.dim)
    assert rows.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float64), axis=1), 1, atol=1e-3)


def test_rows_do_not_depend_on_their_batch() -> None:
    pixels = np.stack([_scene(seed) for seed in range(37)])
    gist = Gist()
    whole = gist.embed(pixels)
    assert np.array_equal(whole, np.concatenate([gist.embed(pixels[i : i + 1]) for i in range(37)]))
    assert np.array_equal(whole[3:30], gist.embed(pixels[3:30]))
    assert gist.embed(pixels[:0]).shape == (0, Gist.dim)


def test_mirror_image_is_the_same() -> None:
    pixels = np.stack([_scene(seed) for seed in range(8)])
    rows, mirrored = Gist().embed(pixels), Gist().embed(np.ascontiguousarray(pixels[:, :, ::-1]))
    assert (rows.astype(np.float64) * mirrored).sum(axis=1).min() > 0.999


def test_copies_are_close_and_strangers_are_not() -> None:
    large = [_scene(seed, 256) for seed in range(30)]
    small = [np.array(Image.fromarray(picture).resize((90, 90))) for picture in large]
    gist = Gist()
    a, b = (gist.embed(np.stack([render(p, gist.view) for p in pictures])) for pictures in (large, small))
    cosine = a.astype(np.float64) @ b.astype(np.float64).T
    assert np.diag(cosine).min() > 0.95
    assert np.median(cosine[~np.eye(30, dtype=bool)]) < 0.5


def test_blank_pictures_have_a_vector() -> None:
    pixels = np.zeros((3, 64, 64, 3), np.uint8)
    pixels[1] = 255
    pixels[2] = (255, 0, 0)
    rows = Gist().embed(pixels).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3)
    assert rows[0] @ rows[2] < 0.2


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("shape", [(100, 150), (150, 100), (97, 203), (20, 31)])
def test_crop_view_is_scale_then_centre(shape: tuple[int, int], interpolation: str) -> None:
    rng = np.random.default_rng(0)
    picture = np.array(Image.fromarray(rng.integers(0, 256, (9, 14, 3), np.uint8)).resize(shape[::-1]))
    view = View(48, "crop", interpolation, resize_px=56)  # type: ignore[arg-type]
    scale = 56 / min(shape)
    height, width = (56 if side == min(shape) else int(side * scale) for side in shape)
    kernel = Image.Resampling.BICUBIC if interpolation == "bicubic" else Image.Resampling.BILINEAR
    scaled = np.array(Image.fromarray(picture).resize((width, height), kernel)).astype(int)
    top, left = round((height - 48) / 2), round((width - 48) / 2)
    difference = np.abs(render(picture, view).astype(int) - scaled[top : top + 48, left : left + 48])
    assert difference.max() <= 6  # rounding of two passes in integers
    assert difference.mean() < 0.5


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1), (16, 30_000), (1, 1)])
def test_extreme_shapes_render_in_little_memory(shape: tuple[int, int]) -> None:
    picture = np.full((*shape, 3), 77, np.uint8)
    picture.flags.writeable = False
    for view in (View(64, "squash"), View(64, "crop"), View(64, "crop", "bilinear", 80)):
        assert (render(picture, view) == 77).all()
