"""Crops of other pictures than RGB squares: bands, rectangles, small images, and regions shown once more."""

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import ks_2samp
from tiny import tiny_config
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from pipelines.config.faults import fault_lines
from pretrain.config import PretrainConfig
from pretrain.data.augment import (
    CropConfig,
    CropParameters,
    MultiCrop,
    make_crop,
    normalise,
    sample_crop,
    sample_region,
)
from pretrain.data.masking import MaskingConfig, mask_batch
from pretrain.data.pictures import decode_side_px

BICUBIC = v2.InterpolationMode.BICUBIC
WIDE = CropConfig(global_size_px=(32, 64), local_size_px=(24, 16), num_local=2)


def noise(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def samples(*shape: int) -> Tensor:
    """Of 16 bits, and of any sign."""
    return torch.from_numpy(np.random.default_rng(1).normal(9000, 30_000, shape).astype(np.float32))


def whole(image: Tensor, **changes: Any) -> CropParameters:
    height, width = image.shape[1:]
    untouched = CropParameters(0, 0, height, width, False, (), False, None, False)
    return dataclasses.replace(untouched, **changes)


def made(image: Tensor, parameters: CropParameters, *, sides_px: tuple[int, int] | None = None) -> Tensor:
    out = torch.empty((len(image), *(sides_px or image.shape[1:])), dtype=image.dtype)
    make_crop(image, parameters, CropConfig(), out=out)
    return out


# Rectangles


@pytest.mark.parametrize("size_px", [(256, 256), (120, 300)])
@pytest.mark.parametrize("aspect", [2.0, 0.6])
def test_regions_of_rectangles_are_torchvisions_around_their_aspect(
    size_px: tuple[int, int], aspect: float
) -> None:
    """Two-sample KS below its 0.1 % point, 0.087 for 1,000 each."""
    rng, ratio = random.Random(0), [3 / 4 * aspect, 4 / 3 * aspect]
    ours = np.array([sample_region(size_px, (0.32, 1.0), rng, aspect=aspect) for _ in range(1000)])
    blank = torch.empty(3, *size_px)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [transforms.RandomResizedCrop.get_params(blank, [0.32, 1.0], ratio) for _ in range(1000)]
    theirs = np.array(drawn)
    for measure in (lambda at: at[:, 0], lambda at: at[:, 2] * at[:, 3], lambda at: at[:, 3] / at[:, 2]):
        assert ks_2samp(measure(ours), measure(theirs), method="asymp").statistic < 0.087


@pytest.mark.parametrize("sides_px", [(32, 64), (98, 28)])
def test_rectangles_are_made_as_torchvision_makes_them(sides_px: tuple[int, int]) -> None:
    image = noise(3, 150, 130)
    parameters = whole(image, top=9, left=20, height=90, width=100)
    expected = functional.resized_crop(image, 9, 20, 90, 100, list(sides_px), BICUBIC, antialias=True)
    assert torch.equal(made(image, parameters, sides_px=sides_px), expected)
    blurred = made(expected, whole(expected, blur_sigma_px=1.3)).int()
    difference = (blurred - functional.gaussian_blur(expected, [9, 9], [1.3, 1.3]).int()).abs()
    assert difference.max() <= 1
    for op, factor in (("contrast", 1.3), ("hue", 0.07), ("saturation", 0.8)):
        got = made(expected, whole(expected, jitter=((op, factor),))).int()
        assert (got - getattr(functional, f"adjust_{op}")(expected, factor).int()).abs().max() <= 1


def test_rectangles_of_a_multi_crop() -> None:
    crops = MultiCrop(WIDE)(noise(3, 90, 80), seed=1)
    assert crops.globals_.shape == (2, 3, 32, 64)
    assert crops.locals_.shape == (2, 3, 24, 16)


def test_a_square_may_be_written_as_a_pair() -> None:
    one, two = (CropConfig(global_size_px=size, local_size_px=24, num_local=1) for size in (48, (48, 48)))
    image = noise(3, 60, 70)
    assert torch.equal(MultiCrop(one)(image, seed=3).globals_, MultiCrop(two)(image, seed=3).globals_)


@pytest.mark.parametrize("crops", [WIDE, CropConfig(), CropConfig(global_size_px=(20, 80), num_local=0)])
def test_no_region_of_a_crops_aspect_is_smaller_than_the_crop(crops: CropConfig) -> None:
    """Of an image whose short side is the one that a JPEG may be reduced to."""
    side_px = decode_side_px(crops)
    for height, width in ((side_px, side_px), (side_px, 3 * side_px), (3 * side_px, side_px)):
        sizes = [(crops.global_size_px, crops.global_scale), (crops.local_size_px, crops.local_scale)]
        for size, scale in sizes[: 1 + bool(crops.num_local)]:
            rows, columns = (size, size) if isinstance(size, int) else size
            area = scale[0] * height * width
            region = (area * rows / columns) ** 0.5, (area * columns / rows) ** 0.5
            fitting = min(1, height / region[0], width / region[1])
            assert region[0] * fitting >= rows - 1e-6
            assert region[1] * fitting >= columns - 1e-6


def test_grids_of_rectangles() -> None:
    """Masks lie on the crop's grid; positions are learned on the square of the nearest area."""
    config = tiny_config(crops={"global_size_px": [24, 40]})
    assert config.crop_grid == (3, 5)
    assert config.grid == config.backbone(drop_path=0.0).grid == 4
    assert tiny_config().crop_grid == (4, 4)
    masks = mask_batch(40, config.crop_grid, MaskingConfig(min_block_patches=2), np.random.default_rng(0))
    assert masks.shape == (40, 15)
    assert masks.any(axis=1).sum() >= 15


# Small images


@pytest.mark.parametrize("size_px", [(20, 30), (5, 5)])
def test_an_image_smaller_than_a_crop_is_enlarged_as_torchvision_does(size_px: tuple[int, int]) -> None:
    image, config, rng = noise(3, *size_px), CropConfig(global_size_px=48, local_size_px=24), random.Random(2)
    for kind, side_px in (("global_1", 48), ("local", 24)):
        drawn = sample_crop(size_px, kind, config, rng)
        region = (drawn.top, drawn.left, drawn.height, drawn.width)
        plain = dataclasses.replace(drawn, flip=False, jitter=(), grey=False, blur_sigma_px=None)
        expected = functional.resized_crop(image, *region, [side_px, side_px], BICUBIC, antialias=True)
        assert torch.equal(made(image, plain, sides_px=(side_px, side_px)), expected)


# Bands


def test_bands_are_resized_at_their_own_precision() -> None:
    image = samples(5, 80, 90)
    parameters = whole(image, top=4, left=8, height=60, width=50, flip=True)
    expected = functional.resized_crop(image, 4, 8, 60, 50, [24, 40], BICUBIC, antialias=True).flip(2)
    torch.testing.assert_close(made(image, parameters, sides_px=(24, 40)), expected, rtol=1e-5, atol=0.1)


def test_what_is_done_to_bands_by_hand() -> None:
    """Contrast is around each band's own mean; colours, grey and solarization are left out."""
    image = torch.tensor([[[1000.0, 3000.0]], [[-8.0, 8.0]]]).repeat(1, 8, 4)
    bright = made(image, whole(image, jitter=(("brightness", 1.5),)))
    assert bright[:, 0, :2].tolist() == [[1500, 4500], [-12, 12]]
    dull = made(image, whole(image, jitter=(("contrast", 0.5),)))
    assert dull[:, 0, :2].tolist() == [[1500, 2500], [-4, 4]]
    colours = whole(image, jitter=(("saturation", 0.1), ("hue", 0.4)), grey=True, solarize=True)
    assert torch.equal(made(image, colours), image)


@pytest.mark.parametrize("sigma_px", [0.3, 1.9])
def test_blur_of_bands_is_torchvisions(sigma_px: float) -> None:
    image = samples(4, 24, 40)
    expected = functional.gaussian_blur(image, [9, 9], [sigma_px, sigma_px])
    torch.testing.assert_close(
        made(image, whole(image, blur_sigma_px=sigma_px)), expected, rtol=1e-5, atol=0.1
    )


def test_the_seed_decides_the_crops_of_bands_on_any_number_of_threads() -> None:
    image, before = samples(4, 90, 70), torch.get_num_threads()
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(MultiCrop(WIDE)(image, seed=5))
    torch.set_num_threads(before)
    assert found[0].globals_.dtype == torch.float32
    assert found[0].globals_.shape == (2, 4, 32, 64)
    assert torch.equal(found[0].globals_, found[1].globals_)
    assert torch.equal(found[0].locals_, found[1].locals_)
    assert torch.equal(image, samples(4, 90, 70))


def test_bands_are_drawn_as_pictures_are() -> None:
    """The same numbers are drawn whatever the channels, so that bands see the regions that RGB would."""
    grey = noise(1, 64, 64).float()
    plain = WIDE.model_copy(update={"jitter_probability": 0.0, "blur": "released"})
    one = MultiCrop(plain)(grey, seed=4).globals_[0]
    four = MultiCrop(plain)(grey.repeat(4, 1, 1), seed=4).globals_[0]
    assert torch.equal(four, one.repeat(4, 1, 1))


def test_normalising_samples_by_hand() -> None:
    image = torch.tensor([1000.0, 5.0]).view(2, 1, 1).repeat(1, 2, 2)
    assert normalise(image, (600.0, 7.0), (200.0, 4.0))[:, 0, 0].tolist() == [2.0, -0.5]
    assert image[:, 0, 0].tolist() == [1000.0, 5.0]


# The same regions once more


def test_gram_crops_show_the_regions_of_the_globals_as_they_are() -> None:
    image = noise(3, 150, 140)
    plain = CropConfig(global_size_px=32, local_size_px=16, num_local=1, blur_kernel_px=3)
    with_gram = plain.model_copy(update={"gram_size_px": 64})
    for seed in range(4):
        without, crops = MultiCrop(plain)(image, seed=seed), MultiCrop(with_gram)(image, seed=seed)
        assert torch.equal(crops.globals_, without.globals_)
        assert torch.equal(crops.locals_, without.locals_)
        assert without.gram is None
        assert crops.gram is not None
        rng = random.Random(seed)
        for kind, crop in zip(("global_1", "global_2"), crops.gram, strict=True):
            drawn = sample_crop((150, 140), kind, plain, rng)
            region = (drawn.top, drawn.left, drawn.height, drawn.width)
            expected = functional.resized_crop(image, *region, [64, 64], BICUBIC, antialias=True)
            assert torch.equal(crop, expected.flip(2) if drawn.flip else expected)


# Configs


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"crops": {"global_size_px": [24, 42]}}, "no multiple of model.patch_px"),
        ({"crops": {"gram_size_px": 36}}, "no multiple of model.patch_px"),
        ({"crops": {"gram_size_px": [32, 64]}}, "another aspect"),
        ({"crops": {"bands": [1, 2, 3, 4]}}, r"model.channels \(3\) is not what crops.bands gives \(4\)"),
        ({"model": {"channels": 4}}, "name a band for each channel"),
        ({"crops": {"bands": []}}, "at least 1 item"),
        ({"crops": {"bands": [0]}, "model": {"channels": 1}}, "greater than or equal to 1"),
        ({"crops": {"mean": [0.5], "std": [0.2]}}, "1 numbers for 3 channels"),
        ({"crops": {"mean": [0.5] * 3}}, "give both"),
        ({"crops": {"mean": [0.5] * 3, "std": [0.2, 0.0, 0.2]}}, "std above 0"),
        (
            {"crops": {"bands": [1, 2, 3]}, "probe": {"train": "a", "test": "b"}},
            "the probe reads pictures in RGB",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        tiny_config(**changes)


@pytest.mark.parametrize(
    ("crops", "line"),
    [
        ({"global_size_px": [224]}, "crops.global_size_px: a size is a side, or [height, width]"),
        ({"local_size_px": 0}, "crops.local_size_px: a size is a side, or [height, width]"),
        ({"local_scale": [0.1]}, "crops.local_scale.1 is missing"),
    ],
)
def test_a_wrong_pair_is_told_in_one_line(crops: dict[str, Any], line: str) -> None:
    data = {"batch_images": 8, "schedule": {"iterations": 3}, "crops": crops}
    with pytest.raises(ValidationError) as raised:
        PretrainConfig.model_validate(data)
    [found] = fault_lines(raised.value, PretrainConfig, data)
    assert found.startswith(line)
