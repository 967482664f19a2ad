"""Views against torchvision's own transforms."""

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from curation.pictures.views import View, render

SIZES = [(40, 70), (70, 40), (64, 64), (224, 224), (301, 200), (90, 89), (33, 260)]


def reference(pixels: np.ndarray, view: View) -> np.ndarray:
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    mode = InterpolationMode(view.interpolation)
    size = [view.side_px, view.side_px] if view.resize == "squash" else [view.need_side_px]
    image = transforms.resize(image, size, interpolation=mode, antialias=True)
    if view.resize == "crop":
        image = transforms.center_crop(image, [view.side_px, view.side_px])
    return image.permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    "view",
    [
        View(64),
        View(64, interpolation="bilinear"),
        View(64, "squash", "bilinear"),
        View(56, resize_px=65),
        View(224, resize_px=256),
    ],
)
@pytest.mark.parametrize("size", SIZES)
def test_equals_torchvision(view: View, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert np.array_equal(render(pixels, view), reference(pixels, view))


def test_a_view_of_its_own_size_is_the_picture() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert np.array_equal(render(pixels, View(32)), pixels)
    assert np.array_equal(render(pixels, View(32, "squash")), pixels)


def test_a_long_strip_is_cut_before_it_is_scaled() -> None:
    strip = np.full((60_000, 16, 3), 7, np.uint8)
    assert (render(strip, View(224)) == 7).all()
