"""Crops: what is drawn, against torchvision's classes; what is made, against its functions; and by hand."""

import dataclasses
import functools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import ks_2samp, kstest
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from pretrain.data.augment import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    CropConfig,
    CropKind,
    CropParameters,
    MultiCrop,
    blur_probability,
    make_crop,
    normalise,
    sample_crop,
    sample_region,
)
from pretrain.data.pixels import JitterOp

OFFICIAL = CropConfig()
SMALL = CropConfig(global_size_px=48, local_size_px=24, num_local=3)
KINDS: tuple[CropKind, ...] = ("global_1", "global_2", "local")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine torchvision's small convolutions take 20 ms with two threads, and 0.3 with one."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


def noise(height_px: int, width_px: int, *, seed: int = 0) -> Tensor:
    """Every level in every channel; the hardest picture for the colour operations."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def scene(side_px: int) -> Tensor:
    """A smooth coloured picture with a few edges."""
    rows, columns = np.mgrid[0:side_px, 0:side_px] / side_px
    waves = [0.5 + 0.3 * np.sin(9 * rows + 3 * c) + 0.2 * np.cos(17 * columns - c * c) for c in range(3)]
    pixels = (255 * np.stack(waves).clip(0, 1)).astype(np.uint8)
    pixels[0, side_px // 3 : side_px // 2] //= 2
    return torch.from_numpy(pixels)


def whole(side_px: int, **changes: Any) -> CropParameters:
    """The whole picture as it is, but for what is named."""
    untouched = CropParameters(0, 0, side_px, side_px, False, (), False, None, False)
    return dataclasses.replace(untouched, **changes)


def made(image: Tensor, parameters: CropParameters, *, side_px: int | None = None) -> Tensor:
    side_px = side_px or image.shape[2]
    out = torch.empty((3, side_px, side_px), dtype=torch.uint8)
    make_crop(image, parameters, OFFICIAL, out=out)
    return out


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Two-sample Kolmogorov-Smirnov statistic; 1.95 sqrt(2 / n) is its 0.1 % point for n draws of each."""
    return ks_2samp(ours, theirs, method="asymp").statistic


@functools.cache
def drawn(kind: CropKind, config: CropConfig, num: int = 3000) -> list[CropParameters]:
    rng = random.Random(5)
    return [sample_crop((256, 256), kind, config, rng) for _ in range(num)]


def pixel(*levels: int) -> Tensor:
    return torch.tensor(levels, dtype=torch.uint8).view(3, 1, 1).expand(3, 8, 8).contiguous()


# What is drawn. Shares of 3,000 draws are held to 0.037, four standard deviations of a share of one half.


@pytest.mark.parametrize("scale", [OFFICIAL.global_scale, OFFICIAL.local_scale])
@pytest.mark.parametrize("size_px", [(256, 256), (300, 200), (40, 400)])
def test_regions_are_those_of_torchvision(size_px: tuple[int, int], scale: tuple[float, float]) -> None:
    """Two-sample KS below its 0.1 % point, 0.062 for 2,000 each; the strip often falls back."""
    rng = random.Random(0)
    ours = np.array([sample_region(size_px, scale, rng) for _ in range(2000)])
    blank = torch.empty(3, *size_px)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = np.array(
            [transforms.RandomResizedCrop.get_params(blank, list(scale), [3 / 4, 4 / 3]) for _ in range(2000)]
        )
    measures = {
        "top": lambda at: at[:, 0],
        "left": lambda at: at[:, 1],
        "area": lambda at: at[:, 2] * at[:, 3],
        "aspect": lambda at: at[:, 3] / at[:, 2],
    }
    for name, measure in measures.items():
        assert distance(measure(ours), measure(theirs)) < 0.062, name
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, :2] + ours[:, 2:] <= size_px).all()


def test_regions_by_hand() -> None:
    """All of a strip's area cannot be cut at an aspect of at most 4/3: its central part is taken."""
    rng = random.Random(0)
    assert sample_region((100, 10), (1.0, 1.0), rng) == (43, 0, 13, 10)  # 10 / (3/4) = 13.3
    assert sample_region((10, 100), (1.0, 1.0), rng) == (0, 43, 10, 13)  # 10 x 4/3
    assert sample_region((1, 1), (1.0, 1.0), rng) == (0, 0, 1, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_odds_of_each_operation(kind: CropKind) -> None:
    crops = drawn(kind, OFFICIAL)
    expected = {"flip": 0.5, "jitter": 0.8, "grey": 0.2, "solarize": 0.2 if kind == "global_2" else 0.0}
    for name, probability in expected.items():
        share = np.mean([bool(getattr(crop, name)) for crop in crops])
        assert share == pytest.approx(probability, abs=0.037), name
    scale = OFFICIAL.local_scale if kind == "local" else OFFICIAL.global_scale
    areas = np.array([crop.height * crop.width for crop in crops]) / 256**2
    assert areas.min() == pytest.approx(scale[0], abs=0.01)
    assert areas.max() == pytest.approx(scale[1], abs=0.01)


@pytest.mark.parametrize(("mode", "expected"), [("released", (0.0, 0.9, 0.5)), ("paper", (1.0, 0.1, 0.5))])
def test_the_odds_of_blur(mode: Literal["released", "paper"], expected: tuple[float, ...]) -> None:
    config = CropConfig(blur=mode)
    for kind, probability in zip(KINDS, expected, strict=True):
        assert blur_probability(kind, config.blur) == pytest.approx(probability)
        share = np.mean([crop.blur_sigma_px is not None for crop in drawn(kind, config)])
        # 0 and 1 are never and always
        assert share == pytest.approx(probability, abs=0 if probability in (0, 1) else 0.037)


def test_the_official_class_inverts_the_odds_of_blur() -> None:
    """What `released` reproduces: 1 - p is handed to RandomApply, which applies with the odds it is given."""
    image = noise(16, 16)
    never = transforms.RandomApply([transforms.GaussianBlur(9, (0.1, 2.0))], p=1 - 1.0)
    assert all(torch.equal(never(image), image) for _ in range(20))


def test_factors_are_uniform_and_orders_equally_likely() -> None:
    """KS against the uniform distribution below its 0.1 % point, 0.04 for 2,400 draws; 24 orders."""
    jitters = [crop.jitter for crop in drawn("local", OFFICIAL) if crop.jitter]
    for op, low, high in (
        ("brightness", 0.6, 1.4),
        ("contrast", 0.6, 1.4),
        ("saturation", 0.8, 1.2),
        ("hue", -0.1, 0.1),
    ):
        factors = [factor for steps in jitters for name, factor in steps if name == op]
        assert kstest(factors, "uniform", args=(low, high - low)).statistic < 0.04, op
    orders = Counter(tuple(op for op, _ in steps) for steps in jitters)
    assert len(orders) == 24
    assert all(abs(count - len(jitters) / 24) < 5 * math.sqrt(len(jitters) / 24) for count in orders.values())
    sigmas = [crop.blur_sigma_px for crop in drawn("global_2", OFFICIAL) if crop.blur_sigma_px is not None]
    assert kstest(sigmas, "uniform", args=(0.1, 1.9)).statistic < 0.04


def test_a_wide_spread_stops_at_zero_and_none_is_no_operation() -> None:
    wide = CropConfig(brightness=3, contrast=0, saturation=0, hue=0, jitter_probability=1)
    factors = []
    for crop in drawn("local", wide, num=500):
        ((op, factor),) = crop.jitter
        assert op == "brightness"
        factors.append(factor)
    assert 0 <= min(factors) < 0.1
    assert 3.9 < max(factors) <= 4
    none = CropConfig(brightness=0, contrast=0, saturation=0, hue=0, jitter_probability=1)
    assert not any(crop.jitter for crop in drawn("local", none, num=20))


# What is made


@pytest.mark.parametrize("side_px", [224, 98, 32])
@pytest.mark.parametrize("region", [(10, 20, 180, 150), (3, 5, 60, 80), (0, 0, 256, 256), (7, 7, 1, 1)])
def test_resizing_is_torchvisions(side_px: int, region: tuple[int, int, int, int]) -> None:
    image = noise(256, 256)
    top, left, height, width = region
    expected = functional.resized_crop(
        image, top, left, height, width, [side_px, side_px], v2.InterpolationMode.BICUBIC, antialias=True
    )
    parameters = whole(256, top=top, left=left, height=height, width=width)
    assert torch.equal(made(image, parameters, side_px=side_px), expected)
    flipped = whole(256, top=top, left=left, height=height, width=width, flip=True)
    assert torch.equal(made(image, flipped, side_px=side_px), functional.horizontal_flip(expected))


@pytest.mark.parametrize(
    ("op", "reference", "factors"),
    [
        ("brightness", functional.adjust_brightness, (0.0, 0.6, 0.93, 1.0, 1.2, 1.4, 3.0)),
        ("contrast", functional.adjust_contrast, (0.0, 0.6, 0.93, 1.0, 1.2, 1.4, 3.0)),
        ("saturation", functional.adjust_saturation, (0.0, 0.8, 0.93, 1.0, 1.1, 1.2, 3.0)),
        ("hue", functional.adjust_hue, (-0.5, -0.1, -0.03, 0.0, 0.01, 0.07, 0.1, 0.5)),
    ],
)
def test_jitter_is_torchvisions(
    op: JitterOp, reference: Callable[[Tensor, float], Tensor], factors: tuple[float, ...]
) -> None:
    """Within one level everywhere, and equal but for one value in a hundred."""
    for image in (noise(98, 98), scene(98), pixel(0, 0, 0), pixel(255, 255, 255), pixel(9, 200, 9)):
        for factor in factors:
            got = made(image, whole(image.shape[2], jitter=((op, factor),))).int()
            difference = (got - reference(image, factor).int()).abs()
            assert difference.max() <= 1, (op, factor)
            assert (difference > 0).float().mean() < 0.01, (op, factor)


def test_jitter_in_sequence_is_torchvisions() -> None:
    """Four steps in a row, each rounded down as theirs: still equal but for a few values in a hundred."""
    image = scene(98)
    steps = (("hue", 0.06), ("contrast", 1.3), ("saturation", 0.85), ("brightness", 1.15))
    expected = image
    for op, factor in steps:
        expected = getattr(functional, f"adjust_{op}")(expected, factor)
    difference = (made(image, whole(98, jitter=steps)).int() - expected.int()).abs()
    assert difference.max() <= 3
    assert (difference > 0).float().mean() < 0.05


def test_grey_is_torchvisions() -> None:
    image = noise(98, 98)
    difference = made(image, whole(98, grey=True)).int() - functional.rgb_to_grayscale(image, 3).int()
    assert difference.abs().max() <= 1
    assert (difference != 0).float().mean() < 0.01


@pytest.mark.parametrize("sigma_px", [0.1, 0.5, 1.0, 1.37, 2.0])
@pytest.mark.parametrize("side_px", [5, 32, 98, 224])
def test_blur_is_torchvisions(side_px: int, sigma_px: float) -> None:
    """Within one level everywhere, and equal but for one value in twenty; grey crops have one plane."""
    image = noise(side_px, side_px)
    for grey in (False, True):
        sharp = functional.rgb_to_grayscale(image, 3) if grey else image
        expected = functional.gaussian_blur(sharp, [9, 9], [sigma_px, sigma_px]).int()
        got = made(sharp, whole(side_px, blur_sigma_px=sigma_px)).int()
        assert (got - expected).abs().max() <= 1
        assert (got != expected).float().mean() < 1 / 20
        if grey:
            assert torch.equal(got[0], got[2])


def test_solarizing_is_torchvisions() -> None:
    image = noise(98, 98)
    assert torch.equal(made(image, whole(98, solarize=True)), functional.solarize(image, 128))


def test_operations_by_hand() -> None:
    def changed(image: Tensor, **changes: Any) -> list[int]:
        return made(image, whole(8, **changes))[:, 0, 0].tolist()

    assert changed(pixel(200, 101, 0), jitter=(("brightness", 0.5),)) == [100, 50, 0]
    assert changed(pixel(200, 101, 0), jitter=(("brightness", 1.5),)) == [255, 151, 0]
    # .2989 x 200 + .587 x 100 + .114 x 50 = 124.18
    assert changed(pixel(200, 100, 50), grey=True) == [124, 124, 124]
    assert changed(pixel(200, 100, 50), jitter=(("saturation", 0.5),)) == [162, 112, 87]
    # The mean grey of a flat picture is its grey.
    assert changed(pixel(200, 100, 50), jitter=(("contrast", 0.0),)) == [124, 124, 124]
    assert changed(pixel(255, 0, 0), jitter=(("hue", 1 / 3),)) == [0, 255, 0]
    assert changed(pixel(255, 0, 0), jitter=(("hue", -1 / 3),)) == [0, 0, 255]
    assert changed(pixel(200, 100, 100), jitter=(("hue", 1 / 6),)) == [200, 200, 100]
    assert changed(pixel(127, 128, 255), solarize=True) == [127, 127, 0]
    # Grey comes before the solarization: 124 stays below the threshold.
    assert changed(pixel(200, 100, 50), grey=True, solarize=True) == [124, 124, 124]


def test_blur_by_hand() -> None:
    """A flat picture stays as it is; a point becomes the window; a point in the corner is mirrored."""
    for level in (0, 1, 128, 254, 255):
        assert (made(pixel(level, level, level), whole(8, blur_sigma_px=1.3)) == level).all()
    point = torch.zeros((3, 32, 32), dtype=torch.uint8)
    point[:, 16, 16] = 255
    window = np.exp(-0.5 * np.arange(-4, 5) ** 2)
    window /= window.sum()
    blurred = made(point, whole(32, blur_sigma_px=1.0))[0, 12:21, 12:21].numpy()
    assert np.abs(blurred - 255 * np.outer(window, window)).max() <= 0.6
    assert blurred.sum() == made(point, whole(32, blur_sigma_px=1.0))[0].sum()
    edge = torch.zeros((3, 32, 32), dtype=torch.uint8)
    edge[:, :, 1] = 255
    # Column 0 sees column 1 on its right and, mirrored, on its left.
    assert made(edge, whole(32, blur_sigma_px=1.0))[0, 5, 0] == round(255 * 2 * window[3])


# All together


def test_crops_are_distributed_as_those_of_the_official_composition() -> None:
    """Brightness, spread, colour and sharpness of 200 crops: KS below its 0.1 % point, 0.195."""
    image, config = scene(96), CropConfig(global_size_px=32, local_size_px=24, num_local=1)
    window = v2.GaussianBlur(9, (0.1, 2.0))
    colours = [v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8), v2.RandomGrayscale(0.2)]
    bicubic = v2.InterpolationMode.BICUBIC
    local = v2.Compose(
        [
            v2.RandomResizedCrop(24, (0.05, 0.32), interpolation=bicubic),
            v2.RandomHorizontalFlip(),
            *colours,
            v2.RandomApply([window], 0.5),
        ]
    )
    second = v2.Compose(
        [
            v2.RandomResizedCrop(32, (0.32, 1.0), interpolation=bicubic),
            v2.RandomHorizontalFlip(),
            *colours,
            v2.RandomApply([window], 0.9),
            v2.RandomSolarize(128, 0.2),
        ]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = {view: torch.stack([view(image) for _ in range(200)]) for view in (local, second)}
    crops = [MultiCrop(config)(image, seed=seed) for seed in range(200)]
    ours = {
        local: torch.stack([crop.locals_[0] for crop in crops]),
        second: torch.stack([crop.globals_[1] for crop in crops]),
    }
    for view in (local, second):
        for name, values in measures(ours[view]).items():
            assert distance(values, measures(theirs[view])[name]) < 0.195, name


def measures(crops: Tensor) -> dict[str, np.ndarray]:
    levels = crops.float()
    values = {
        "brightness": levels.mean(dim=(1, 2, 3)),
        "spread": levels.std(dim=(1, 2, 3)),
        "colour": (levels.amax(dim=1) - levels.amin(dim=1)).mean(dim=(1, 2)),
        "red": (levels[:, 0] - levels[:, 1]).mean(dim=(1, 2)),
        "sharpness": levels.diff(dim=3).abs().mean(dim=(1, 2, 3)),
        "left_to_right": levels.diff(dim=3).mean(dim=(1, 2, 3)),
    }
    return {name: value.numpy() for name, value in values.items()}


def test_the_seed_decides_everything() -> None:
    image, crops = scene(80), MultiCrop(SMALL)
    first = crops(image, seed=7)
    torch.rand(3)
    random.random()  # the process's own state is no part of it
    again, other = crops(image, seed=7), crops(image, seed=8)
    assert torch.equal(first.globals_, again.globals_)
    assert torch.equal(first.locals_, again.locals_)
    assert not torch.equal(first.globals_, other.globals_)
    for one, two in pairwise([*first.locals_, *other.locals_]):
        assert not torch.equal(one, two)


def test_the_states_of_the_process_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)
    num_threads = torch.get_num_threads()
    # The checks of shapes draw from Python's state; what draws numbers must not.
    for name in ("random", "uniform", "randint", "shuffle", "sample", "choice"):
        monkeypatch.delattr(random, name)
    image = scene(80)
    before = image.clone()
    MultiCrop(SMALL)(image, seed=1)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_equal(np.random.get_state(legacy=False), numpy_state)
    assert torch.get_num_threads() == num_threads
    assert torch.equal(image, before)


def test_threads_and_memory_order_change_nothing() -> None:
    image = noise(256, 256)
    crops = MultiCrop(CropConfig(num_local=2))
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results += [crops(picture, seed=seed) for picture in (image, image.contiguous()) for seed in (3, 4)]
    for i, result in enumerate(results):
        assert torch.equal(result.globals_, results[i % 2].globals_)
        assert torch.equal(result.locals_, results[i % 2].locals_)


@pytest.mark.parametrize("size_px", [(1, 1), (1, 50), (70, 2), (300, 40)])
def test_odd_images(size_px: tuple[int, int]) -> None:
    for seed in range(5):
        crops = MultiCrop(SMALL)(noise(*size_px), seed=seed)
        assert crops.globals_.shape == (2, 3, 48, 48)
        assert crops.locals_.shape == (3, 3, 24, 24)
        assert crops.globals_.dtype == crops.locals_.dtype == torch.uint8


def test_no_local_crops() -> None:
    crops = MultiCrop(SMALL.model_copy(update={"num_local": 0}))(scene(64), seed=0)
    assert crops.locals_.shape == (0, 3, 24, 24)
    assert torch.equal(crops.globals_, MultiCrop(SMALL)(scene(64), seed=0).globals_)


def test_normalising_is_torchvisions() -> None:
    images = torch.stack([noise(8, 8, seed=seed) for seed in range(6)]).view(2, 3, 3, 8, 8)
    expected = functional.normalize(images.float() / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))
    torch.testing.assert_close(normalise(images), expected, rtol=0, atol=1e-6)
    half = normalise(images, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, normalise(images).to(torch.bfloat16))
    # By hand: (255 / 255 - 0.5) / 0.25, and a single channel
    white = torch.full((1, 2, 2), 255, dtype=torch.uint8)
    assert torch.equal(normalise(white, (0.5,), (0.25,)), torch.full((1, 2, 2), 2.0))
    with pytest.raises(ValueError, match="argument"):
        normalise(images, (0.5,), (0.25,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_scale": (0.0, 1.0)}, "global_scale is"),
        ({"local_scale": (0.4, 0.3)}, "local_scale is"),
        ({"local_scale": (0.4, 1.3)}, "local_scale is"),
        ({"blur_sigma_px": (0.0, 1.0)}, "blur_sigma_px is"),
        ({"blur_kernel_px": 8}, "make it odd"),
        ({"local_size_px": 4}, "needs more than 4 px"),
        ({"num_local": -1}, "num_local"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CropConfig.model_validate(changes)
