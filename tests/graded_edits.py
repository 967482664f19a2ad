"""The eight edits that a copy may have gone through, each at three fixed strengths."""

import io
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from pipelines.demo.edits import Edit

Strength = Literal["weak", "medium", "strong"]
STRENGTHS: tuple[Strength, ...] = get_args(Strength)

JPEG_QUALITY = {"weak": 75, "medium": 45, "strong": 15}
SCALE = {"weak": 0.75, "medium": 0.5, "strong": 0.25}
KEPT_SIDE = {"weak": 0.95, "medium": 0.85, "strong": 0.7}
FACTOR = {"weak": 1.15, "medium": 1.4, "strong": 1.8}
BLUR_PX = {"weak": 0.8, "medium": 1.6, "strong": 3.2}
BAND_SHARE = {"weak": 0.08, "medium": 0.15, "strong": 0.25}
BORDER_SHARE = {"weak": 0.03, "medium": 0.07, "strong": 0.15}


def graded_edit(image: Image.Image, kind: Edit, strength: Strength, rng: np.random.Generator) -> bytes:
    """The JPEG file of an edited copy.

    Args:
        image: RGB.
        kind: a flip has no strength; a stronger one is also cropped, and then also resized.
        strength: how much; `rng` draws where and which way, never how much.
        rng: see `strength`.
    """
    quality = JPEG_QUALITY[strength] if kind == "reencode" else 92
    out = io.BytesIO()
    _edited(image, kind, strength, rng).save(out, "JPEG", quality=quality)
    return out.getvalue()


def _edited(image: Image.Image, kind: Edit, strength: Strength, rng: np.random.Generator) -> Image.Image:
    match kind:
        case "reencode":
            return image
        case "resize":
            return _scaled(image, SCALE[strength])
        case "crop":
            return _cropped(image, KEPT_SIDE[strength], rng)
        case "flip":
            flipped = ImageOps.mirror(image)
            if strength != "weak":
                flipped = _cropped(flipped, 0.95, rng)
            return _scaled(flipped, 0.5) if strength == "strong" else flipped
        case "colour":
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                factor = FACTOR[strength]
                image = enhance(image).enhance(factor if rng.random() < 0.5 else 1 / factor)
            return image
        case "blur":
            return image.filter(ImageFilter.GaussianBlur(BLUR_PX[strength]))
        case "overlay":
            return _captioned(image, BAND_SHARE[strength], rng)
        case "border":
            side = max(1, round(min(image.size) * BORDER_SHARE[strength]))
            return ImageOps.expand(image, side, "#ffffff" if rng.random() < 0.5 else "#1b1b1f")


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _cropped(image: Image.Image, kept_side: float, rng: np.random.Generator) -> Image.Image:
    width, height = max(1, round(image.width * kept_side)), max(1, round(image.height * kept_side))
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def _captioned(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    image = image.copy()
    pen, (width, height) = ImageDraw.Draw(image, "RGBA"), image.size
    tall = height * share
    top = (height - tall) * float(rng.choice([0.0, 1.0]))
    pen.rectangle((0, top, width, top + tall), fill=(0, 0, 0, 150))
    font = ImageFont.load_default(max(6, int(tall * 0.7)))
    pen.text((width / 2, top + tall / 2), "when you see it", fill="white", font=font, anchor="mm")
    return image
