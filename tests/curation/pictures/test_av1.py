"""av1: an AVIF's frames are held against the cap whatever size its container tells."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from curation.pictures.av1 import refuse_avif
from curation.pictures.decode import DecodeConfig, Decoded, decode

MAX_PIXELS = 100_000


def _decode(data: bytes) -> Decoded:
    return decode(data, need_side_px=64, config=DecodeConfig(max_pixels=MAX_PIXELS))


def _encode(width: int, height: int, *, mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    if mode == "RGBA":
        image.putalpha(image.getchannel("R"))
    buffer = io.BytesIO()
    image.save(buffer, "AVIF", speed=10, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _calling_itself(data: bytes, width: int, height: int) -> bytes:
    """Every size that the container tells, changed."""
    lying, at = bytearray(data), data.find(b"ispe")
    while at > 0:
        lying[at + 8 : at + 16] = struct.pack(">II", width, height)
        at = data.find(b"ispe", at + 4)
    return bytes(lying)


@pytest.mark.parametrize("options", [{}, {"mode": "L"}, {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}])
def test_a_small_container_around_a_large_frame(options: dict[str, object]) -> None:
    data = _calling_itself(_encode(400, 300, **options), 64, 64)  # type: ignore[arg-type]
    decoded = _decode(data)
    assert decoded.reason == "too_many_pixels"
    assert decoded.warnings == ("AVIF: a frame of 120000 pixels",)
    assert _decode(_calling_itself(_encode(300, 200), 64, 64)).warnings != decoded.warnings


def test_of_sequences_and_of_opacity_too() -> None:
    more = [Image.new("RGB", (400, 300)), Image.new("RGB", (400, 300), (9, 8, 7))]
    animated = _encode(400, 300, save_all=True, append_images=more)
    assert animated[8:12] == b"avis"
    for data in (animated, _encode(400, 300, mode="RGBA")):
        assert refuse_avif(data, max_pixels=120_000) is None
        refused = refuse_avif(data, max_pixels=119_999)
        assert refused == ("too_many_pixels", "a frame of 120000 pixels")


@pytest.mark.parametrize("size", [(64, 64), (333, 222), (16, 500)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_sound_files_pass(size: tuple[int, int], mode: str) -> None:
    decoded = _decode(_encode(*size, mode=mode))
    assert decoded.reason is None
    assert (decoded.width, decoded.height) == size


def test_items_that_overlap_are_not_read_again_and_again() -> None:
    """A table of 20,000 items, each nearly the whole file and each another."""
    body = b"".join(struct.pack(">HHHII", number, 0, 1, number, 0) for number in range(20_000))
    table = b"\0\0\0\0\x44\0" + struct.pack(">H", 20_000) + body
    iloc = struct.pack(">I4s", 8 + len(table), b"iloc") + table
    meta = struct.pack(">I4s", 12 + len(iloc), b"meta") + bytes(4) + iloc
    data = b"\0\0\0\x14ftypavif\0\0\0\0avif" + meta + bytes(1_000_000)
    assert refuse_avif(data, max_pixels=MAX_PIXELS) == ("metadata_bomb", "items that overlap")
    # And pieces that take no bytes, of which there can be any number.
    table = b"\0\0\0\0\0\0" + struct.pack(">H", 60_000) + struct.pack(">HHH", 1, 0, 65_535) * 60_000
    iloc = struct.pack(">I4s", 8 + len(table), b"iloc") + table
    assert refuse_avif(data[:20] + iloc, max_pixels=MAX_PIXELS) == ("metadata_bomb", "items that overlap")


def test_damage_never_raises() -> None:
    rng = np.random.default_rng(0)
    for data in (_encode(64, 48), _encode(64, 48, save_all=True, append_images=[Image.new("RGB", (64, 48))])):
        for _ in range(500):
            damaged = np.frombuffer(data, np.uint8).copy()
            places = rng.integers(0, min(len(data), 900), 6)
            damaged[places] = rng.integers(0, 256, 6)
            refuse_avif(damaged.tobytes()[: rng.integers(1, len(data) + 1)], max_pixels=MAX_PIXELS)
