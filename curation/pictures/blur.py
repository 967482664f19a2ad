"""Blur faces in a picture, and encode it again in its own format. Pure: the same bytes for the same input."""

import io
import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFilter, JpegImagePlugin
from pydantic import BaseModel, Field

# The rim of the blurred ellipse fades over this share of the face's longer side, so that no edge is learnt.
RIM_SHARE = 0.05
# How far a Gaussian reaches, in standard deviations: so much of the surroundings a face is blurred with.
REACH = 3
EDIT = "faces_blurred"
MAX_TABLE_VALUE = 255  # of the quantisation tables that a baseline JPEG may have

# What a picture is written as; an animation's first frame as PNG, since GIF would cost it its colours.
WRITTEN_AS: Mapping[str, tuple[str, str]] = {
    "JPEG": ("JPEG", "jpg"), "PNG": ("PNG", "png"), "WEBP": ("WEBP", "webp"), "GIF": ("PNG", "png"),
    "BMP": ("BMP", "bmp"), "TIFF": ("TIFF", "tif"), "AVIF": ("AVIF", "avif"),
}  # fmt: skip


class BlurConfig(BaseModel, frozen=True, extra="forbid"):
    """How faces are made unrecognisable."""

    strength: float = Field(
        0.15,
        gt=0,
        le=1,
        description="standard deviation of the Gaussian, as a share of the face's longer side",
    )
    grow: float = Field(
        0.2,
        ge=0,
        le=1,
        description="how far the blurred ellipse reaches beyond the box, as a share of its sides",
    )
    min_score: float | None = Field(
        None, description="least confidence of a face that is blurred; null: every face that was found"
    )


def blur_faces(
    pixels: UInt8[np.ndarray, "h w 3"], boxes: Float[np.ndarray, "n 4"], config: BlurConfig
) -> UInt8[np.ndarray, "h w 3"]:
    """Blur an ellipse around every face, the stronger the larger the face.

    Args:
        pixels: RGB, 0–255, upright.
        boxes: left, top, width and height (px) of every face in this picture.

    Source: arXiv:2304.07193, §3 (identifiable faces are blurred); the form follows arXiv:2103.06191, §4:
        boxes enlarged, a Gaussian in proportion to the face, a mask that fades.
    """
    image = Image.fromarray(pixels)
    for left, top, width, height in boxes.astype(np.float64).tolist():
        longer = max(width, height)
        sigma = config.strength * longer
        margin = math.ceil(REACH * sigma + config.grow * longer)
        area = (
            max(0, math.floor(left) - margin),
            max(0, math.floor(top) - margin),
            min(image.width, math.ceil(left + width) + margin),
            min(image.height, math.ceil(top + height) + margin),
        )
        mask = Image.new("L", (area[2] - area[0], area[3] - area[1]), 0)
        oval = (
            left - area[0] - config.grow * width,
            top - area[1] - config.grow * height,
            left - area[0] + (1 + config.grow) * width,
            top - area[1] + (1 + config.grow) * height,
        )
        ImageDraw.Draw(mask).ellipse(oval, fill=255)
        mask = mask.filter(ImageFilter.GaussianBlur(RIM_SHARE * longer))
        image.paste(image.crop(area).filter(ImageFilter.GaussianBlur(sigma)), area[:2], mask)
    return np.asarray(image)


def encode_like(
    original: bytes, pixels: UInt8[np.ndarray, "h w 3"], *, file_format: str, quality: int
) -> tuple[bytes, str]:
    """Encode pixels in the format of the file that they came from, without metadata.

    A JPEG keeps its quantisation and its subsampling, so that what was not touched changes by no more than
    rounding; PNG, BMP and TIFF lose nothing. A GIF becomes a PNG of its first frame. Where Pillow cannot
    write the like, or cannot even open what was decoded, a JPEG has `quality`, and all else becomes a PNG.

    Args:
        pixels: RGB, 0–255, upright.
        file_format: of the original, as Pillow names it.
        quality: 1–100, for formats that lose something and do not tell how much they did.

    Returns:
        The new file's bytes, and its extension.
    """
    image = Image.fromarray(pixels)
    kind, extension = WRITTEN_AS[file_format]
    try:
        return _save_like(image, original, kind=kind, quality=quality), extension
    except MemoryError:
        raise  # the machine's fault, not the picture's
    except Exception:  # on odd files Pillow raises nearly anything: UnidentifiedImageError, ValueError, …
        out = io.BytesIO()
        if kind == "JPEG":
            image.save(out, kind, quality=quality, subsampling=0)
        else:
            kind, extension = WRITTEN_AS["PNG"]
            image.save(out, kind)
        return out.getvalue(), extension


def _save_like(image: Image.Image, original: bytes, *, kind: str, quality: int) -> bytes:
    out = io.BytesIO()
    match kind:
        case "JPEG":
            _save_jpeg(image, original, out, quality=quality)
        case "WEBP":
            image.save(out, kind, lossless=original[12:16] == b"VP8L", quality=quality)
        case "AVIF":
            image.save(out, kind, quality=quality, max_threads=1)
        case "TIFF":
            image.save(out, kind, compression="tiff_adobe_deflate")
        case _:
            image.save(out, kind)
    return out.getvalue()


def _save_jpeg(image: Image.Image, original: bytes, out: io.BytesIO, *, quality: int) -> None:
    with Image.open(io.BytesIO(original), formats=("JPEG", "MPO")) as header:
        # A file numbers its tables as it likes, 1 alone or 0 and 2; Pillow writes them in order.
        tables = [table for _, table in sorted(header.quantization.items())]  # type: ignore[attr-defined]
        sampling = JpegImagePlugin.get_sampling(header)
        is_grey = header.mode == "L"
    if is_grey:
        image = image.convert("L")
    if tables and max(map(max, tables)) <= MAX_TABLE_VALUE:
        # -1: of a picture with no chroma, or cut in a way that Pillow cannot write.
        image.save(out, "JPEG", qtables=tables, subsampling=max(sampling, 0))
    else:
        image.save(out, "JPEG", quality=quality, subsampling=0)
