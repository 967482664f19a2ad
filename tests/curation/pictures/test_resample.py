import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from curation.pictures.resample import resize
from curation.pictures.views import View, render


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("seed", range(20))
def test_the_bytes_are_torchs(seed, interpolation):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 500, 2)
    size = tuple(rng.integers(1, 300, 2).tolist())
    grain = int(rng.integers(1, 20))
    coarse = rng.integers(0, 256, (height // grain + 1, width // grain + 1, 3), np.uint8)
    pixels = coarse.repeat(grain, axis=0).repeat(grain, axis=1)[:height, :width].copy()
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    expected = interpolate(image, size=size, mode=interpolation, antialias=True)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(resize(pixels, size, interpolation), expected)


@pytest.mark.parametrize("view", [View(64), View(64, "squash", "bilinear"), View(56, "crop", "bicubic", 64)])
@pytest.mark.parametrize("shape", [(200, 300, 3), (300, 200, 3), (40, 700, 3), (64, 64, 3)])
def test_a_view_is_the_same_by_either(view, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    assert np.array_equal(render(pixels, view, resize=resize), render(pixels, view))
