"""Bytes to upright RGB pixels, or the reason why not. Hard safety caps only; taste is judged elsewhere."""

import io
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, Field

from curation.errors import is_no_memory
from curation.pictures import deep, formats, jpeg
from curation.pictures.av1 import refuse_avif
from curation.pictures.band_view import BandView, lacking, view_of
from curation.pictures.colour import orientation_of, to_rgb, turn_upright
from curation.pictures.costs import refuse_bmp, refuse_png, webp_size
from curation.pictures.frames import first_that_shows
from curation.pictures.remarks import overheard, remark
from curation.pictures.samples import read_samples
from curation.pictures.tiff import refuse_tiff, without_thumbnails

# What a decoder holds of a picture at most, bytes a pixel: libwebp's frame, its canvas, and our own copy.
_HELD_BYTES = 16


class DecodeConfig(BaseModel, frozen=True, extra="forbid"):
    """What a file may cost before it is refused unread."""

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
    # What is off is no part of an identity: outputs made before there were bands keep theirs.
    bands: BandView | None = Field(
        None,
        exclude_if=lambda bands: bands is None,
        description="TIFFs have many bands or 16 bits, and this is how they are looked at; null: as pictures",
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
    warnings: tuple[str, ...]  # single words of ours, joined by _, and decoders' own: "libtiff: …"
    reason: str | None  # one of REASONS["describe"]; None where decoded


def decode(data: bytes, *, need_side_px: int, config: DecodeConfig) -> Decoded:
    """Decode one file: JPEG by libjpeg-turbo, the rest by Pillow, EXIF orientation applied, one frame only.

    The size that a header promises is checked before anything is allocated. A JPEG that lacks nothing but its
    end marker is accepted with a warning, since every pixel is there. Safe to call from many threads: the
    decoders release the GIL.

    Args:
        need_side_px: short side that the caller will use, px; a larger JPEG may be decoded at 1/2, 1/4 or 1/8
            of its size, never below this.

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
    try:
        header = jpeg.read_header(data)
    except ValueError as error:
        return _refuse("metadata_bomb", file_format="JPEG", warnings=(remark("JPEG", str(error)),))
    if jpeg.has_more_scans(data, header.scan_start if header else 0, limit=config.max_jpeg_scans):
        return _refuse("corrupt", file_format="JPEG", warnings=("too_many_scans",))
    if header is None:
        return _decode_with_pillow(data, config=config)
    size = (header.width, header.height) if header.orientation < 5 else (header.height, header.width)
    if header.foreign is not None:
        words = (remark("JPEG", header.foreign),)
        return _refuse("unsupported_format", file_format="JPEG", size=size, warnings=words)
    if header.width * header.height > config.max_pixels:
        return _refuse("too_many_pixels", file_format="JPEG", size=size)
    if not header.is_plain:
        said = jpeg.listen_in(data, header)
        return _refuse_or_ask_pillow(said, data, size=size, config=config)
    reduction = jpeg.choose_reduction(min(size), need_side_px) if config.jpeg_scaling else 1
    try:
        pixels, is_complete = jpeg.decode_plain(data, header, reduction=reduction)
    except ValueError as error:
        return _refuse_or_ask_pillow(str(error), data, size=size, config=config)
    return Decoded(pixels, "JPEG", *size, () if is_complete else ("missing_end_marker",), None)


def _refuse_or_ask_pillow(
    said: str | None, data: bytes, *, size: tuple[int, int], config: DecodeConfig
) -> Decoded:
    """What becomes of a JPEG on which libjpeg had this remark, or none."""
    if said is None:
        return _decode_with_pillow(data, config=config)
    words = remark("libjpeg", said)
    if jpeg.TRUNCATED in said:
        return _refuse("truncated", file_format="JPEG", size=size, warnings=(words,))
    if any(damage in said for damage in jpeg.DAMAGE):
        return _refuse("corrupt", file_format="JPEG", size=size, warnings=(words,))
    # The rest is harmless more often than not (stray bytes between segments). Pillow, whose idea of a
    # readable picture most people share, has the last word.
    return _decode_with_pillow(data, config=config, warnings=("libjpeg_remark", words))


def _decode_with_pillow(data: bytes, *, config: DecodeConfig, warnings: tuple[str, ...] = ()) -> Decoded:
    claimed = formats.sniff(data)
    if claimed == "TIFF" and config.bands is not None:
        return _decode_bands(data, config.bands, max_pixels=config.max_pixels)
    if claimed == "TIFF" and (picture := without_thumbnails(data)) is not data:
        data, warnings = picture, (*warnings, "thumbnail_skipped")
    if (refusal := _refuse_unopened(data, claimed, config=config)) is not None:
        return refusal
    with overheard() as heard:
        decoded = _open_and_load(data, claimed, heard=heard, config=config)
    return replace(decoded, warnings=tuple(dict.fromkeys((*warnings, *decoded.warnings, *heard))))


def _decode_bands(data: bytes, config: BandView, *, max_pixels: int) -> Decoded:
    found = read_samples(data, max_pixels=max_pixels, max_bytes=config.max_bytes)
    reason, words = found.reason, found.words
    if found.values is not None:
        missing = lacking(found.values.shape[2], config)
        if missing is None:
            warnings = ("zero_tail",) if formats.has_zero_tail(data) else ()
            return Decoded(view_of(found.values, config), "TIFF", *found.size, warnings, None)
        reason, words = "unsupported_format", missing
    assert reason is not None, "no samples, and no reason"
    return _refuse(reason, file_format="TIFF", size=found.size, warnings=(remark("TIFF", words),))


def _refuse_unopened(data: bytes, claimed: str | None, *, config: DecodeConfig) -> Decoded | None:
    """Refuse what would cost more than its picture is worth before Pillow sees it."""
    match claimed:
        case "TIFF":
            found = refuse_tiff(data)
        case "PNG":
            found = refuse_png(data)
        case "BMP":
            found = refuse_bmp(data)
        case "AVIF":
            found = refuse_avif(data, max_pixels=config.max_pixels)
        case _:
            return None
    if found is None:
        return None
    reason, words = found
    return _refuse(reason, file_format=claimed, warnings=(remark(claimed, words),))


def _open_and_load(data: bytes, claimed: str | None, *, heard: list[str], config: DecodeConfig) -> Decoded:
    file_format, size = claimed, (0, 0)
    try:
        with Image.open(io.BytesIO(data), formats=formats.ALLOWED) as image:
            file_format, size = formats.plain_name(image.format), image.size
            if image.width * image.height > config.max_pixels:
                return _refuse("too_many_pixels", file_format=file_format, size=size)
            is_deep = deep.is_deep(image)
            image.load()
            size = image.size  # TIFF turns itself upright here
            orientation, remarks = _read_orientation(image), _remarks(image, data)
            made = deep.to_rgb_of_both_bytes(image, data, formats=formats.ALLOWED) if is_deep else None
            if made is None:
                made = to_rgb(image)
            if made is None:
                said = (remark("lvd", f"mode {image.mode} has no honest RGB"),)
                return _refuse("unsupported_format", file_format=file_format, size=size, warnings=said)
            made = first_that_shows(image, made, max_pixels=config.max_pixels)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return _refuse("too_many_pixels", file_format=file_format)
    except MemoryError:
        raise  # the machine's fault: the size of the picture was checked
    except UnidentifiedImageError:
        words = _why_unidentified(data, file_format)
        reason = formats.reason_unidentified(data, words)
        packed = formats.packed_in_gzip(data)
        heard_of = _said_by_pillow(words) if packed is None else (remark("lvd", f"{packed} packed by gzip"),)
        return _refuse(reason, file_format=file_format, warnings=heard_of)
    except Exception as error:  # on bad data Pillow raises nearly anything: SyntaxError, struct.error, …
        if is_no_memory(error) or not _has_room(data, claimed, size, max_pixels=config.max_pixels):
            raise MemoryError(str(error)) from error  # as above, in words of a decoder, or taken for damage
        reason = formats.reason_of(error, data, heard=" ".join(heard))
        words = str(error) or type(error).__name__
        return _refuse(reason, file_format=file_format, size=size, warnings=_said_by_pillow(words))
    pixels = turn_upright(made[0], orientation)
    warnings = (*remarks, *made[1])
    return Decoded(pixels, file_format, pixels.shape[1], pixels.shape[0], warnings, None)


def _has_room(data: bytes, claimed: str | None, size: tuple[int, int], *, max_pixels: int) -> bool:
    """Whether memory for a picture could be had: of one without it, libwebp says that it cannot be read."""
    width, height = webp_size(data) if claimed == "WEBP" else size
    try:
        np.empty(_HELD_BYTES * min(width * height, max_pixels), np.uint8)  # is not touched
    except MemoryError:
        return False
    return True


def _said_by_pillow(words: str) -> tuple[str, ...]:
    return (remark("Pillow", words),) if words else ()


def _why_unidentified(data: bytes, claimed: str | None) -> str:
    """What the one reader said that should have known; `Image.open` keeps it to itself."""
    if claimed not in formats.ALLOWED or claimed not in Image.OPEN:
        return ""
    try:
        Image.OPEN[claimed][0](io.BytesIO(data), "")
    except Exception as error:
        return str(error)
    return ""


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
    if image.format in ("TIFF", "BMP", "WEBP", "AVIF") and formats.has_zero_tail(data):
        return ("zero_tail",)  # these decoders take it for pixels; it may be black ones
    return ()
