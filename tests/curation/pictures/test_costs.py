"""costs: files whose form costs more than their picture are refused before a decoder walks through them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from curation.pictures import costs, jpeg
from curation.pictures.decode import DecodeConfig, Decoded, decode


def _decode(data: bytes) -> Decoded:
    return decode(data, need_side_px=224, config=DecodeConfig())


def _encode(file_format: str, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (64, 48)).save(buffer, file_format)
    return buffer.getvalue()


def _with_chunks(chunk: bytes, number: int) -> bytes:
    data = _encode("PNG")
    return data[:33] + chunk * number + data[33:]  # behind IHDR


@pytest.mark.parametrize("name", [b"raNd", b"tEXt"])
def test_pngs_of_very_many_chunks(name: bytes) -> None:
    body = b"key\0value" if name == b"tEXt" else b""
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    decoded = _decode(_with_chunks(chunk, costs.MAX_CHUNKS))
    assert decoded.reason == "metadata_bomb"
    assert decoded.warnings == ("PNG: more than 100000 chunks",)
    assert _decode(_with_chunks(chunk, 1000)).reason is None


def test_pngs_with_their_pixels_in_crumbs() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (200, 750), np.uint8)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows), 0)
    header = b"IHDR" + struct.pack(">IIBBBBB", 250, 200, 8, 2, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    crumbs = [pixels[i : i + 1] for i in range(len(pixels))]
    chunks = b"".join(b"\0\0\0\1IDAT" + c + struct.pack(">I", zlib.crc32(b"IDAT" + c)) for c in crumbs)
    assert len(crumbs) > costs.MAX_CHUNKS
    assert _decode(head + chunks + _encode("PNG")[-12:]).reason == "metadata_bomb"


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
@pytest.mark.parametrize("segment", [b"\xff\xfe\0\2", b"\xff\xe5\0\4ab", b"\xff\xd0"])
def test_jpegs_of_very_many_segments(mode: str, segment: bytes) -> None:
    data = _encode("JPEG", mode)
    decoded = _decode(data[:2] + segment * (jpeg.MAX_SEGMENTS + 1) + data[2:])
    assert decoded.reason == "metadata_bomb"
    assert decoded.warnings == ("JPEG: more than 10000 segments in front of the picture",)


def test_jpegs_of_very_many_exifs() -> None:
    data = _encode("JPEG", "CMYK")
    exif = b"\xff\xe1\0\x10Exif\0\0II*\0\x08\0\0\0"
    assert _decode(data[:2] + exif * (jpeg.MAX_EXIF + 1) + data[2:]).reason == "metadata_bomb"
    assert _decode(data[:2] + exif * 2 + data[2:]).reason is None


def test_fill_bytes_cost_nothing() -> None:
    data = _encode("JPEG")
    decoded = _decode(data[:2] + b"\xff" * 20_000_000 + data[2:])
    assert (decoded.reason, decoded.width) == (None, 64)


def test_very_many_markers_between_scans_are_too_many_scans() -> None:
    data = _encode("JPEG")
    start = data.rfind(b"\xff\xda")
    tail = b"\xff\x01\0\0" * (jpeg.MAX_MARKERS + 1) + b"\xff\xda" * 200
    assert jpeg.has_more_scans(data[:-2] + tail, start, limit=100)
    assert not jpeg.has_more_scans(data[:-2] + b"\xff\xd9" + b"\xff\xda" * 200, start, limit=100)


@pytest.mark.parametrize("compression", [1, 2])
def test_bmps_of_very_many_run_lengths(compression: int) -> None:
    def bmp(num_bytes: int) -> bytes:
        bits = 4 * (3 - compression)
        header = struct.pack("<IHHI", 0, 0, 0, 54 + 64)
        header += struct.pack("<IiiHHIIiiII", 40, 64, 48, 1, bits, compression, num_bytes, 0, 0, 16, 0)
        line = b"\1\7" * 64 + b"\0\0"  # 64 runs of one pixel
        return b"BM" + header + bytes(64) + line * (num_bytes // len(line)) + b"\0\1"

    decoded = _decode(bmp(costs.MAX_RUN_LENGTH_BYTES + 130))
    assert decoded.reason == "file_too_large"
    assert decoded.warnings[0].startswith("BMP: 524")
    assert _decode(bmp(48 * 130)).reason is None
