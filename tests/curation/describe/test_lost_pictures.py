"""Pictures that decoding loses, or that cost more than they are worth; each will go where its cure is tested."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from curation.describe.decode import DecodeConfig, Decoded, decode


def _decode(data: bytes) -> Decoded:
    return decode(data, need_side_px=224, config=DecodeConfig())


def _encode(image: Image.Image, file_format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format)
    return buffer.getvalue()


@pytest.mark.xfail(strict=True, reason="transparency always lies over white")
def test_white_strokes_on_a_clear_ground_are_seen() -> None:
    picture = Image.new("RGBA", (160, 120), (255, 255, 255, 0))
    ImageDraw.Draw(picture).ellipse([20, 30, 90, 80], outline=(255, 255, 255, 255), width=5)
    decoded = _decode(_encode(picture, "PNG"))
    assert decoded.pixels is not None
    assert decoded.pixels.std() > 0


@pytest.mark.xfail(strict=True, reason="16-bit grey keeps its high byte alone")
def test_eight_bits_in_sixteen_are_seen() -> None:
    scene = (np.indices((120, 160)).sum(axis=0) % 256).astype(np.uint16)
    decoded = _decode(_encode(Image.fromarray(scene), "PNG"))
    assert decoded.pixels is not None
    assert decoded.pixels.std() > 0


@pytest.mark.xfail(strict=True, reason="what libjpeg does not read is called corrupt")
@pytest.mark.parametrize(("marker", "bits"), [(0xC1, 12), (0xC3, 8)])
def test_jpegs_of_12_bits_and_lossless_ones_are_of_no_format_of_ours(marker: int, bits: int) -> None:
    data = bytearray(_encode(Image.new("RGB", (64, 64), (90, 90, 90)), "JPEG"))
    at = data.find(b"\xff\xc0")
    data[at + 1], data[at + 4] = marker, bits
    assert _decode(bytes(data)).reason == "unsupported_format"


@pytest.mark.xfail(strict=True, reason="a tile may be as large as its tags say")
def test_a_tile_far_larger_than_its_picture_is_refused() -> None:
    side = 2048
    data = zlib.compress(bytes(side * side * 3))
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 2, 277: 3, 284: 1, 322: side, 323: side}
    tags |= {324: 8 + 2 + 12 * 11 + 4, 325: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    assert _decode(head + data).reason is not None
