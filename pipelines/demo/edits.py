"""Edits that turn a picture into a copy that people would still call the same picture.

Eight kinds, in the strengths that the web applies to pictures every day; every strength is drawn from `rng`.
"""

import io
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

Edit = Literal["reencode", "resize", "crop", "flip", "colour", "blur", "overlay", "border"]
EDITS: tuple[Edit, ...] = get_args(Edit)


def edit(image: Image.Image, kind: Edit, rng: np.random.Generator) -> Image.Image:
    """Edit a picture.

    Args:
        image: RGB.
        kind: one of `EDITS`; `reencode` returns the picture as it is, since `encode` is what changes it.
        rng: draws the strength.

    Returns:
        A picture of mode RGB, as a rule of another size.
    """
    match kind:
        case "reencode":
            return image
        case "resize":
            scale = rng.uniform(0.5, 1.5)
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            return image.resize(size, Image.Resampling.LANCZOS)
        case "crop":
            return _crop(image, rng)
        case "flip":
            return ImageOps.mirror(image)
        case "colour":
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                image = enhance(image).enhance(float(rng.uniform(0.7, 1.3)))
            return image
        case "blur":
            return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.6, 1.8))))
        case "overlay":
            return _overlay(image, rng)
        case "border":
            return _border(image, rng)


def encode(image: Image.Image, kind: Edit, rng: np.random.Generator) -> bytes:
    """Encode an edited picture as JPEG: quality 50–90 where that is the edit, 90–95 otherwise."""
    low, high = (50, 90) if kind == "reencode" else (90, 95)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=int(rng.integers(low, high + 1)))
    return stream.getvalue()


def edit_file(data: bytes, kind: Edit, rng: np.random.Generator) -> bytes:
    """The file of an edited copy: decode (upright, RGB), edit, encode.

    Args:
        data: bytes of an image file.
        kind: one of `EDITS`.
        rng: draws every strength.

    Returns:
        Bytes of a JPEG file.
    """
    with Image.open(io.BytesIO(data)) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    return encode(edit(image, kind, rng), kind, rng)


def _crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Keep 80–95 % of each side, anywhere."""
    keep = rng.uniform(0.80, 0.95, 2)
    width, height = max(1, round(image.width * keep[0])), max(1, round(image.height * keep[1]))
    left = int(rng.integers(image.width - width + 1))
    top = int(rng.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def _overlay(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A caption on a band, or a logo in a corner."""
    image = image.copy()
    pen = ImageDraw.Draw(image, "RGBA")
    width, height = image.size
    if rng.uniform() < 0.5:
        tall = height * rng.uniform(0.10, 0.16)
        top = (height - tall) * rng.choice([0.0, 0.8, 1.0])
        pen.rectangle((0, top, width, top + tall), fill=(0, 0, 0, 150))
        font = ImageFont.load_default(max(6, int(tall * 0.7)))
        pen.text((width / 2, top + tall / 2), "when you see it", fill="white", font=font, anchor="mm")
    else:
        radius = min(width, height) * rng.uniform(0.07, 0.12)
        x, y = width * rng.choice([0.14, 0.86]), height * rng.choice([0.14, 0.86])
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(214, 40, 40, 230))
        font = ImageFont.load_default(max(6, int(radius)))
        pen.text((x, y), "TV", fill="white", font=font, anchor="mm")
    return image


def _border(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """What a screenshot adds: margins all around, and a bar with buttons above."""
    side = max(2, round(min(image.size) * rng.uniform(0.02, 0.07)))
    top = max(4, round(image.height * rng.uniform(0.05, 0.10)))
    paper, bar = ("#ffffff", "#dee2e6") if rng.uniform() < 0.5 else ("#1b1b1f", "#3a3a40")
    framed = Image.new("RGB", (image.width + 2 * side, image.height + top + side), paper)
    pen = ImageDraw.Draw(framed)
    pen.rectangle((0, 0, framed.width, top - 1), fill=bar)
    for index, colour in enumerate(("#ff5f57", "#febc2e", "#28c840")):
        x = top * (0.6 + 0.7 * index)
        pen.ellipse((x - 0.2 * top, 0.3 * top, x + 0.2 * top, 0.7 * top), fill=colour)
    framed.paste(image, (side, top))
    return framed
