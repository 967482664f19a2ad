"""Multi-crop: two global and several local crops of an image, recoloured; first drawn, then made."""

import math
import random
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn.functional import interpolate

from pretrain.data.pixels import JitterOp, adjust, blur, to_grey

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # R, G, B, of levels 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)

# Of torchvision's RandomResizedCrop, which the official code uses as it comes.
ASPECT_RANGE = (3 / 4, 4 / 3)
REGION_TRIES = 10

CropKind = Literal["global_1", "global_2", "local"]
Share = tuple[float, float]


class CropConfig(BaseModel):
    """Sizes of the crops and the odds of what happens to them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    global_size_px: int = Field(224, ge=1, description="side of the two global crops, pixels")
    local_size_px: int = Field(
        98,
        ge=1,
        description="side of the local crops, pixels; a multiple of the patch (96 for 16, 98 for 14)",
    )
    num_local: int = Field(8, ge=0, description="local crops of an image")
    global_scale: Share = Field(
        (0.32, 1.0), description="smallest and largest share of the image's area in a global crop, 0-1"
    )
    local_scale: Share = Field(
        (0.05, 0.32), description="smallest and largest share of the image's area in a local crop, 0-1"
    )
    flip_probability: float = Field(0.5, ge=0, le=1, description="odds of a mirrored crop, 0-1")
    jitter_probability: float = Field(
        0.8, ge=0, le=1, description="odds that brightness, contrast, saturation and hue are changed, 0-1"
    )
    brightness: float = Field(0.4, ge=0, description="factor of the levels lies in [max(0, 1 - b), 1 + b]")
    contrast: float = Field(0.4, ge=0, description="factor of the distance from the mean grey, likewise")
    saturation: float = Field(0.2, ge=0, description="factor of the distance from the pixel's grey, likewise")
    hue: float = Field(0.1, ge=0, le=0.5, description="turn of the hue lies in [-hue, hue], full circles")
    grey_probability: float = Field(0.2, ge=0, le=1, description="odds of a crop without colour, 0-1")
    blur: Literal["released", "paper"] = Field(
        "released",
        description="odds of blur on global crop 1, global crop 2, local crops: as the official code that "
        "trained the released models has them (0, 0.9, 0.5), or as the paper does (1, 0.1, 0.5)",
    )
    blur_kernel_px: int = Field(9, ge=3, description="side of the Gaussian's window, odd, pixels of the crop")
    blur_sigma_px: tuple[float, float] = Field(
        (0.1, 2.0), description="smallest and largest standard deviation of the Gaussian, pixels of the crop"
    )
    solarize_probability: float = Field(
        0.2, ge=0, le=1, description="odds that global crop 2 is solarized, 0-1; the others never are"
    )
    solarize_threshold: int = Field(
        128, ge=0, le=256, description="levels from here on are inverted when solarized, 0-256"
    )

    @model_validator(mode="after")
    def _check(self) -> "CropConfig":
        for name, (low, high) in (("global_scale", self.global_scale), ("local_scale", self.local_scale)):
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name} is ({low}, {high}); it needs 0 < smallest <= largest <= 1")
        low, high = self.blur_sigma_px
        if not 0 < low <= high:
            raise ValueError(f"blur_sigma_px is ({low}, {high}); it needs 0 < smallest <= largest")
        if self.blur_kernel_px % 2 == 0:
            raise ValueError(
                f"blur_kernel_px is {self.blur_kernel_px}; a window has a middle, so make it odd"
            )
        smallest_px = min(self.global_size_px, self.local_size_px)
        if smallest_px <= self.blur_kernel_px // 2:
            raise ValueError(
                f"a crop of {smallest_px} px cannot be mirrored at its edges for a blur of "
                f"{self.blur_kernel_px} px; it needs more than {self.blur_kernel_px // 2} px"
            )
        return self


@dataclass(frozen=True, slots=True)
class CropParameters:
    """What is done to an image to make one crop of it, in the order of the fields."""

    top: int  # of the region that is cut out, pixels of the image
    left: int
    height: int
    width: int
    flip: bool
    jitter: tuple[tuple[JitterOp, float], ...]  # factors, and circles for hue, in the order of application
    grey: bool
    blur_sigma_px: float | None
    solarize: bool


@dataclass(frozen=True, slots=True)
class Crops:
    """The crops of one image, RGB levels; `normalise` them on the device."""

    globals_: UInt8[Tensor, "2 3 g g"]
    locals_: UInt8[Tensor, "num_local 3 l l"]


class MultiCrop:
    """Makes the crops of an image: what comes out depends on the image, the config and the seed alone.

    Neither the process's random state nor its number of threads is read or changed: the odds come from a
    generator of the call's own, and every sum over pixels is exact, so that its order does not matter.

    Source: arXiv:2304.07193, appendix B; `dinov2/data/augmentations.py`.
    """

    def __init__(self, config: CropConfig) -> None:
        self.config = config

    def __call__(self, image: UInt8[Tensor, "3 h w"], *, seed: int) -> Crops:
        """Make the crops of one image.

        Args:
            image: RGB, uint8, (3, h, w), of any size; quickest as a permuted (h, w, 3), as decoders give it.
            seed: of this image in this epoch, not negative.

        Returns:
            Two global crops, uint8, (2, 3, g, g), and the local ones, uint8, (num_local, 3, l, l).
        """
        config = self.config
        rng = random.Random(seed)
        size_px = (image.shape[1], image.shape[2])
        globals_ = torch.empty((2, 3, config.global_size_px, config.global_size_px), dtype=torch.uint8)
        locals_ = torch.empty(
            (config.num_local, 3, config.local_size_px, config.local_size_px), dtype=torch.uint8
        )
        kinds: tuple[CropKind, CropKind] = ("global_1", "global_2")
        for kind, crop in zip(kinds, globals_, strict=True):
            make_crop(image, sample_crop(size_px, kind, config, rng), config, out=crop)
        for crop in locals_:
            make_crop(image, sample_crop(size_px, "local", config, rng), config, out=crop)
        return Crops(globals_, locals_)


def normalise(
    images: UInt8[Tensor, "*n c h w"],
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "*n c h w"]:
    """Turn levels into what a model takes: (level / 255 - mean) / std, in fp32, then rounded to `dtype`.

    Args:
        images: uint8, (..., c, h, w), on any device.
        mean: of each channel, of levels 0..1.
        std: of each channel, of levels 0..1.
        dtype: of the result, floating.

    Returns:
        `dtype`, (..., c, h, w), on the same device.
    """
    values = images.to(torch.float32)
    # Plain numbers: a tensor of constants would be copied to the device, and waited for, on every call.
    for channel, channel_mean, channel_std in zip(values.unbind(-3), mean, std, strict=True):
        channel.sub_(255 * channel_mean).div_(255 * channel_std)
    return values.to(dtype)


def sample_crop(
    size_px: tuple[int, int], kind: CropKind, config: CropConfig, rng: random.Random
) -> CropParameters:
    """Draw what will be done to an image to make one crop.

    Python's own generator: a number costs 0.1 µs, against 1 to 3 from NumPy or torch, and the sequence of its
    `random()`, which alone is used here, is promised to stay the same in every version.

    Args:
        size_px: (height, width) of the image.
        kind: which crop; the kinds differ in scale, blur and solarization.
        config: the odds and ranges.
        rng: where they are drawn from.

    Returns:
        The region, inside the image, and the operations.
    """
    scale = config.local_scale if kind == "local" else config.global_scale
    top, left, height, width = sample_region(size_px, scale, rng)
    flip = rng.random() < config.flip_probability
    jitter = _sample_jitter(config, rng) if rng.random() < config.jitter_probability else ()
    grey = rng.random() < config.grey_probability
    is_blurred = rng.random() < blur_probability(kind, config.blur)
    blur_sigma_px = _uniform(*config.blur_sigma_px, rng) if is_blurred else None
    solarize = kind == "global_2" and rng.random() < config.solarize_probability
    return CropParameters(top, left, height, width, flip, jitter, grey, blur_sigma_px, solarize)


def blur_probability(kind: CropKind, mode: Literal["released", "paper"]) -> float:
    """Odds that a crop of this kind is blurred.

    `paper` is what the papers from BYOL to DINOv2 say. The official code hands 1 - p to a torchvision class
    that takes it for the odds of applying, so what it says is inverted, and the released models were trained
    that way: github.com/facebookresearch/dinov3/issues/286, github.com/facebookresearch/dinov2/issues/411.
    """
    match kind:
        case "global_1":
            probability = 1.0
        case "global_2":
            probability = 0.1
        case "local":
            probability = 0.5
    return probability if mode == "paper" else 1 - probability


def sample_region(size_px: tuple[int, int], scale: Share, rng: random.Random) -> tuple[int, int, int, int]:
    """Draw a region as torchvision's RandomResizedCrop does.

    Its share of the area is uniform in `scale` and its aspect log-uniform; where none of ten tries fits into
    the image, it is the largest central region of an allowed aspect.

    Args:
        size_px: (height, width) of the image.
        scale: smallest and largest share of the area.
        rng: where it is drawn from.

    Returns:
        top, left, height, width, pixels of the image.
    """
    image_height, image_width = size_px
    low, high = ASPECT_RANGE
    for _ in range(REGION_TRIES):
        area = image_height * image_width * _uniform(*scale, rng)
        aspect = math.exp(_uniform(math.log(low), math.log(high), rng))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= image_width and 0 < height <= image_height:
            top = int(rng.random() * (image_height - height + 1))
            left = int(rng.random() * (image_width - width + 1))
            return top, left, height, width
    height, width = image_height, image_width
    if image_width < low * image_height:
        height = round(image_width / low)
    elif image_width > high * image_height:
        width = round(image_height * high)
    return (image_height - height) // 2, (image_width - width) // 2, height, width


def make_crop(
    image: UInt8[Tensor, "3 h w"],
    parameters: CropParameters,
    config: CropConfig,
    *,
    out: UInt8[Tensor, "3 s s"],
) -> None:
    """Make one crop of an image.

    Args:
        image: RGB, uint8, (3, h, w).
        parameters: the region and the operations.
        config: the blur's window and the threshold of solarization.
        out: where the crop is written; its side s is the crop's, pixels.
    """
    crop = _resize_region(image, parameters, side_px=out.shape[1])
    if parameters.flip:
        crop = crop.flip(2)
    if parameters.jitter or parameters.grey or parameters.blur_sigma_px is not None:
        levels = crop.to(torch.float32, memory_format=torch.contiguous_format).numpy()
        for op, factor in parameters.jitter:
            levels = adjust(levels, op, factor)
        if parameters.grey:
            levels = to_grey(levels)[None]  # one plane is enough for what follows
        if parameters.blur_sigma_px is not None:
            levels = blur(levels, parameters.blur_sigma_px, kernel_px=config.blur_kernel_px)
        np.copyto(out.numpy(), levels, casting="unsafe")
    else:
        out.copy_(crop)
    if parameters.solarize:
        out ^= (out >= config.solarize_threshold).to(torch.uint8).mul_(255)  # 255 - level is level ^ 255


def _sample_jitter(config: CropConfig, rng: random.Random) -> tuple[tuple[JitterOp, float], ...]:
    """Draw the factor of each operation that is not switched off, and their order."""
    drawn: list[tuple[JitterOp, float]] = []
    spreads: tuple[tuple[JitterOp, float], ...] = (
        ("brightness", config.brightness),
        ("contrast", config.contrast),
        ("saturation", config.saturation),
    )
    for op, spread in spreads:
        if spread > 0:
            drawn.append((op, _uniform(max(0.0, 1 - spread), 1 + spread, rng)))
    if config.hue > 0:
        drawn.append(("hue", _uniform(-config.hue, config.hue, rng)))
    return tuple(sorted(drawn, key=lambda _: rng.random()))


def _uniform(low: float, high: float, rng: random.Random) -> float:
    return low + (high - low) * rng.random()


def _resize_region(
    image: UInt8[Tensor, "3 h w"], region: CropParameters, *, side_px: int
) -> UInt8[Tensor, "3 s s"]:
    rows = slice(region.top, region.top + region.height)
    columns = slice(region.left, region.left + region.width)
    # torch's uint8 kernel wants whole pixels in a row: 180 to 224 px in 0.21 ms with this copy, 0.36 without.
    part = image[None, :, rows, columns].contiguous(memory_format=torch.channels_last)
    if part.shape[2:] == (side_px, side_px):
        return part[0]
    return interpolate(part, size=(side_px, side_px), mode="bicubic", antialias=True)[0]
