"""Multi-crop: two global and several local crops of an image, recoloured; first drawn, then made.

Pictures in colour are 8-bit RGB, and are recoloured as the official code does. Bands (`crops.bands`) are fp32
in the unit of the file; of what is done to colours, brightness, contrast and blur mean something for them.
"""

import math
import random
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn.functional import interpolate

from pretrain.data.pixels import JitterOp, adjust, blur, distort_bands, to_grey
from pretrain.data.regions import Share, sample_region, uniform

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # R, G, B, of levels 0..1
IMAGENET_STD = (0.229, 0.224, 0.225)

CropKind = Literal["global_1", "global_2", "local"]
Size = int | tuple[int, int]  # of a square; height and width
Moments = tuple[float, ...] | Literal["measured"] | None
Levels = UInt8[Tensor, "c h w"] | Float32[Tensor, "c h w"]
Crop = UInt8[Tensor, "c g_h g_w"] | Float32[Tensor, "c g_h g_w"]


def _checked_size(value: object) -> object:
    """Of a union, pydantic would tell what is wrong with each of its types."""
    sides = value if isinstance(value, list | tuple) and len(value) == 2 else [value]
    if not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"a size is a side, or [height, width], whole pixels from 1 (got {value})")
    return value


SizeField = Annotated[Size, BeforeValidator(_checked_size)]


class CropConfig(BaseModel):
    """Sizes of the crops and the odds of what happens to them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    global_size_px: SizeField = Field(
        224, description="side of the two global crops, or height and width, pixels"
    )
    local_size_px: SizeField = Field(
        98,
        description="side of the local crops, or height and width, pixels; multiples of the patch (96 for "
        "16, 98 for 14)",
    )
    gram_size_px: SizeField | None = Field(
        None,
        description="for every global crop the same region once more, flipped alike and not recoloured, at "
        "this size, pixels; null: none",
    )
    bands: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None,
        min_length=1,
        description="numbers of the bands of TIFFs, from 1, that are the model's channels, as they were "
        "measured; null: pictures in RGB",
    )
    mean: Moments = Field(
        None,
        description="of each channel, subtracted: of levels 0-1, or in the unit of the bands; `measured`: "
        "over images of the dataset; null: ImageNet's, and measured for bands",
    )
    std: Moments = Field(None, description="of each channel, divided by; likewise")
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
        smallest_px = min(*sides_of(self.global_size_px), *sides_of(self.local_size_px))
        if smallest_px <= self.blur_kernel_px // 2:
            raise ValueError(
                f"a crop of {smallest_px} px cannot be mirrored at its edges for a blur of "
                f"{self.blur_kernel_px} px; it needs more than {self.blur_kernel_px // 2} px"
            )
        return self

    @model_validator(mode="after")
    def _check_gram(self) -> "CropConfig":
        if self.gram_size_px is not None:
            (height, width), (rows, columns) = sides_of(self.gram_size_px), sides_of(self.global_size_px)
            if height * columns != width * rows:
                raise ValueError(
                    f"gram_size_px ({height} x {width}) has another aspect than global_size_px "
                    f"({rows} x {columns}), of whose regions it is another view"
                )
        return self

    @model_validator(mode="after")
    def _check_moments(self) -> "CropConfig":
        mean, std = self.mean, self.std
        if not (isinstance(mean, tuple) and isinstance(std, tuple)):
            if mean != std:
                raise ValueError(f"mean is {mean} and std is {std}; give both, or neither, or measure both")
        elif (
            len(mean) != len(std)
            or not all(map(math.isfinite, mean))
            or not all(0 < x < math.inf for x in std)
        ):
            raise ValueError(
                f"mean is {mean} and std is {std}; give finite numbers for each channel, std above 0"
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
    """The crops of one image, RGB levels or samples of bands; `normalise` them on the device."""

    globals_: UInt8[Tensor, "2 c g_h g_w"] | Float32[Tensor, "2 c g_h g_w"]
    locals_: UInt8[Tensor, "num_local c l_h l_w"] | Float32[Tensor, "num_local c l_h l_w"]
    # What globals_ show, at another size and as it is.
    gram: UInt8[Tensor, "2 c m_h m_w"] | Float32[Tensor, "2 c m_h m_w"] | None = None


class MultiCrop:
    """Makes the crops of an image: what comes out depends on the image, the config and the seed alone.

    Neither the process's random state nor its number of threads is read or changed: the odds come from a
    generator of the call's own, and every sum over pixels is exact, so that its order does not matter.

    Source: arXiv:2304.07193, appendix B; `dinov2/data/augmentations.py`.
    """

    def __init__(self, config: CropConfig) -> None:
        self.config = config

    def __call__(self, image: Levels, *, seed: int) -> Crops:
        """Make the crops of one image.

        Args:
            image: RGB, uint8, (3, h, w), or bands, fp32, (c, h, w), of any size; quickest as a permuted
                (h, w, c), as decoders give it. A smaller one than a crop is enlarged.
            seed: of this image in this epoch, not negative.

        Returns:
            Two global crops, (2, c, height, width), and the local ones, (num_local, c, height, width), of the
            image's dtype; and what `gram_size_px` asks for.
        """
        config = self.config
        rng = random.Random(seed)
        size_px = (image.shape[1], image.shape[2])

        def blank(num: int, size: Size) -> Tensor:
            return torch.empty((num, len(image), *sides_of(size)), dtype=image.dtype)

        globals_, locals_ = blank(2, config.global_size_px), blank(config.num_local, config.local_size_px)
        kinds: tuple[CropKind, CropKind] = ("global_1", "global_2")
        views = [sample_crop(size_px, kind, config, rng) for kind in kinds]
        for view, crop in zip(views, globals_, strict=True):
            make_crop(image, view, config, out=crop)
        for crop in locals_:
            make_crop(image, sample_crop(size_px, "local", config, rng), config, out=crop)
        if config.gram_size_px is None:
            return Crops(globals_, locals_)
        gram = blank(2, config.gram_size_px)
        for view, crop in zip(views, gram, strict=True):
            as_is = replace(view, jitter=(), grey=False, blur_sigma_px=None, solarize=False)
            make_crop(image, as_is, config, out=crop)
        return Crops(globals_, locals_, gram)


def sides_of(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def normalise(
    images: UInt8[Tensor, "*n c h w"] | Float32[Tensor, "*n c h w"],
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "*n c h w"]:
    """Turn levels into what a model takes: (level / 255 - mean) / std, in fp32, then rounded to `dtype`.

    Args:
        images: levels, uint8, or samples of bands, fp32, which are not divided by 255; (..., c, h, w), on any
            device.
        mean: of each channel, of levels 0..1 or in the unit of the samples.
        std: of each channel, likewise.
        dtype: of the result, floating.

    Returns:
        `dtype`, (..., c, h, w), on the same device.
    """
    values, unit = images.to(torch.float32, copy=True), 255 if images.dtype == torch.uint8 else 1
    # Plain numbers: a tensor of constants would be copied to the device, and waited for, on every call.
    for channel, channel_mean, channel_std in zip(values.unbind(-3), mean, std, strict=True):
        channel.sub_(unit * channel_mean).div_(unit * channel_std)
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
    crop_height, crop_width = sides_of(config.local_size_px if kind == "local" else config.global_size_px)
    top, left, height, width = sample_region(size_px, scale, rng, aspect=crop_width / crop_height)
    flip = rng.random() < config.flip_probability
    jitter = _sample_jitter(config, rng) if rng.random() < config.jitter_probability else ()
    grey = rng.random() < config.grey_probability
    is_blurred = rng.random() < blur_probability(kind, config.blur)
    blur_sigma_px = uniform(*config.blur_sigma_px, rng) if is_blurred else None
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


def make_crop(image: Levels, parameters: CropParameters, config: CropConfig, *, out: Crop) -> None:
    """Make one crop of an image.

    Args:
        image: RGB, uint8, (3, h, w); or bands, fp32, (c, h, w).
        parameters: the region and the operations; to bands, those on colours and solarization are not done.
        config: the blur's window and the threshold of solarization.
        out: where the crop is written, of the image's dtype; its sides are the crop's, pixels.
    """
    crop = _resize_region(image, parameters, sides_px=(out.shape[1], out.shape[2]))
    if parameters.flip:
        crop = crop.flip(2)
    if image.dtype != torch.uint8:
        out.copy_(crop)
        distort_bands(
            out.numpy(), parameters.jitter, parameters.blur_sigma_px, kernel_px=config.blur_kernel_px
        )
        return
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
            drawn.append((op, uniform(max(0.0, 1 - spread), 1 + spread, rng)))
    if config.hue > 0:
        drawn.append(("hue", uniform(-config.hue, config.hue, rng)))
    return tuple(sorted(drawn, key=lambda _: rng.random()))


def _resize_region(image: Levels, region: CropParameters, *, sides_px: tuple[int, int]) -> Tensor:
    rows = slice(region.top, region.top + region.height)
    columns = slice(region.left, region.left + region.width)
    # torch's uint8 kernel wants whole pixels in a row: 180 to 224 px in 0.21 ms with this copy, 0.36 without.
    part = image[None, :, rows, columns].contiguous(memory_format=torch.channels_last)
    if part.shape[2:] == sides_px:
        return part[0]
    return interpolate(part, size=sides_px, mode="bicubic", antialias=True)[0]
