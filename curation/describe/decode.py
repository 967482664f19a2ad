"""Bytes to upright RGB pixels, or the reason why not. Hard safety caps only; taste is judged elsewhere."""

import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field

from curation.describe import formats, jpeg
from curation.describe.colour import orientation_of, to_rgb, turn_upright


class DecodeConfig(BaseModel):
    """What a file may cost before it is refused unread."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_file_bytes: int = Field(50_000_000, gt=0, description="largest file that is decoded, bytes")
    max_pixels: int = Field(
        64_000_000,
        gt=0,
        le=89_478_485,  # where Pillow's own bomb warning starts
        description="largest width x height that a header may promise, pixels",
    )
    max_jpeg_scans: int = Field(
        100, gt=0, description="most scans in a JPEG (ordinary progressive files have about 10)"
    )
    jpeg_scaling: bool = Field(
        True,
        description="let the JPEG decoder halve pictures of at least twice the size needed (1.5-4 x as fast)",
    )


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture, or the reason why there is none."""

    pixels: (
        UInt8[np.ndarray, "h w 3"] | None
    )  # upright RGB, contiguous; smaller than width x height if scaled
    format: str | None  # as Pillow names them
    width: int | None  # of the original picture, upright, px
    height: int | None
    warnings: tuple[str, ...]
    reason: str | None  # one of REASONS["describe"]; None where decoded


def decode(data: bytes, *, need_side_px: int, config: DecodeConfig) -> Decoded:
    """Decode one file: JPEG by libjpeg-turbo, the rest by Pillow, EXIF orientation applied, first frame only.

    The size that a header promises is checked before anything is allocated. A JPEG that lacks nothing but its
    end marker is accepted with a warning, since every pixel is there. Safe to call from many threads: the
    decoders release the GIL.

    Args:
        data: the file, whole.
        need_side_px: short side that the caller will use, px; a larger JPEG may be decoded at 1/2, 1/4 or 1/8
            of its size, never below this.
        config: the caps.

    Returns:
        The picture, or a reason. Bad data never raises.
    """
    if not data:
        return _refuse("empty")
    if len(data) > config.max_file_bytes:
        return _refuse("file_too_large")
    if data.startswith(jpeg.SOI):
        return _decode_jpeg(data, need_side_px=need_side_px, config=config)
    return _decode_with_pillow(data, config=config)


def _refuse(
    reason: str,
    *,
    file_format: str | None = None,
    size: tuple[int, int] = (0, 0),
    warnings: tuple[str, ...] = (),
) -> Decoded:
    width, height = size if min(size) > 0 and max(size) < 2**31 else (None, None)
    return Decoded(None, file_format, width, height, warnings, reason)


def _decode_jpeg(data: bytes, *, need_side_px: int, config: DecodeConfig) -> Decoded:
    header = jpeg.read_header(data)
    if jpeg.has_more_scans(data, header.scan_start if header else 0, limit=config.max_jpeg_scans):
        return _refuse("corrupt", file_format="JPEG", warnings=("too_many_scans",))
    if header is None or not header.is_plain:
        return _decode_with_pillow(data, config=config)
    size = (header.width, header.height) if header.orientation < 5 else (header.height, header.width)
    if header.width * header.height > config.max_pixels:
        return _refuse("too_many_pixels", file_format="JPEG", size=size)
    reduction = jpeg.choose_reduction(min(size), need_side_px) if config.jpeg_scaling else 1
    try:
        pixels, is_complete = jpeg.decode_plain(data, header, reduction=reduction)
    except ValueError as error:
        remark = str(error)
        if jpeg.TRUNCATED in remark:
            return _refuse("truncated", file_format="JPEG", size=size)
        if any(words in remark for words in jpeg.DAMAGE):
            return _refuse("corrupt", file_format="JPEG", size=size)
        # The rest is harmless more often than not (stray bytes between segments). Pillow, whose idea of a
        # readable picture most people share, has the last word.
        return _decode_with_pillow(data, config=config, warnings=("libjpeg_remark",))
    return Decoded(pixels, "JPEG", *size, () if is_complete else ("missing_end_marker",), None)


def _decode_with_pillow(data: bytes, *, config: DecodeConfig, warnings: tuple[str, ...] = ()) -> Decoded:
    file_format, size = formats.sniff(data), (0, 0)
    try:
        with Image.open(io.BytesIO(data), formats=formats.ALLOWED) as image:
            file_format, size = formats.plain_name(image.format), image.size
            if image.width * image.height > config.max_pixels:
                return _refuse("too_many_pixels", file_format=file_format, size=size)
            image.load()
            size = image.size  # TIFF turns itself upright here
            pixels = to_rgb(image)
            if pixels is None:
                return _refuse("unsupported_format", file_format=file_format, size=size)
            orientation = _read_orientation(image)
            warnings += _remarks(image, data)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return _refuse("too_many_pixels", file_format=file_format)
    except MemoryError:
        raise  # the machine's fault: the size of the picture was checked
    except UnidentifiedImageError:
        return _refuse(formats.reason_unidentified(data), file_format=file_format)
    except Exception as error:  # on bad data Pillow raises nearly anything: SyntaxError, struct.error, …
        return _refuse(formats.reason_of(error, data), file_format=file_format, size=size)
    pixels = turn_upright(pixels, orientation)
    return Decoded(pixels, file_format, pixels.shape[1], pixels.shape[0], warnings, None)


def _read_orientation(image: Image.Image) -> int:
    for name in (
        "xmp",
        "XML:com.adobe.xmp",
    ):  # Pillow would take the tag from there, browsers and libjpeg not
        image.info.pop(name, None)
    try:
        return orientation_of(image.getexif())
    except Exception:  # garbage in metadata says nothing about the picture
        return 1


def _remarks(image: Image.Image, data: bytes) -> tuple[str, ...]:
    if image.format == "PNG" and data.rfind(b"IEND") < 0:
        return ("missing_end_marker",)  # every row was there, or Pillow had raised
    if image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        return ("cmyk_polarity_guessed",)
    return ()
