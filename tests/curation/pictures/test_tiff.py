"""tiff: what a directory asks for is held against the picture, before a decoder allocates for it."""

import io
import lzma
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from pictures import DATA, Tag, rgb_tags, tiff
from PIL import Image

from curation.pictures.decode import DecodeConfig, Decoded, decode
from curation.pictures.tiff import MAX_NUMBERS, refuse_tiff, without_thumbnails

MAX_RISE_BYTES = 20_000_000


def _decode(data: bytes) -> Decoded:
    return decode(data, need_side_px=224, config=DecodeConfig())


def _zeros(num_bytes: int) -> bytes:
    pack = zlib.compressobj(9)
    steps = range(0, num_bytes, 1 << 20)
    return b"".join(pack.compress(bytes(min(1 << 20, num_bytes - at))) for at in steps) + pack.flush()


def _tiled(side: int, *, width: int = 64, height: int = 64, tile_kind: int = 4, order: str = "<") -> bytes:
    """A picture in deflated tiles of `side`, all of them the same."""
    data = _zeros(side * side * 3)
    num = -(-width // side) * -(-height // side)
    tags = rgb_tags(width, height, compression=8, t322=(tile_kind, [side]), t323=(tile_kind, [side]))
    offsets: list[int | str] = [DATA] * num
    return tiff(tags | {324: (4, offsets), 325: (4, [len(data)] * num)}, data, order=order)


def _rise_bytes(folder: Path, data: bytes) -> int:
    """By how much a fresh process grows at most while it decodes a file, bytes."""
    (folder / "file").write_bytes(data)
    code = """if True:
        import io, sys
        from pathlib import Path
        from PIL import Image
        from curation.pictures.decode import DecodeConfig, decode

        def peak() -> int:
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

        small = io.BytesIO()
        Image.new("RGB", (8, 8)).save(small, "TIFF", compression="tiff_lzw")
        decode(small.getvalue(), need_side_px=64, config=DecodeConfig())
        data = Path(sys.argv[1]).read_bytes()
        before = peak()
        decode(data, need_side_px=224, config=DecodeConfig())
        print(peak() - before)
    """
    command = [sys.executable, "-c", code, str(folder / "file")]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("side", [2048, 8192])
def test_a_tile_far_larger_than_its_picture_is_refused_unread(side: int, tmp_path: Path) -> None:
    data = _tiled(side)
    decoded = _decode(data)
    assert decoded.reason == "too_many_pixels"
    assert decoded.warnings == (f"TIFF: a tile of {side * side * 3} bytes for a picture of 12288",)
    assert _rise_bytes(tmp_path, data) < MAX_RISE_BYTES


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tile_kind", [3, 4])
def test_tile_bombs_of_every_writing(tile_kind: int, order: str) -> None:
    assert _decode(_tiled(4096, tile_kind=tile_kind, order=order)).reason == "too_many_pixels"


def test_a_tile_bomb_in_a_big_tiff() -> None:
    values = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: 8192, 323: 8192, 324: 16, 325: 4}
    entries = b"".join(struct.pack("<HHQQ", tag, 16, 1, value) for tag, value in values.items())
    data = b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, len(values)) + entries + bytes(8)
    assert _decode(data).reason == "too_many_pixels"


@pytest.mark.parametrize("tag", [322, 323])
def test_a_tag_that_stands_twice_counts_by_what_costs_more(tag: int) -> None:
    """Pillow takes the last of two, libtiff the first."""
    plain = _tiled(8192)
    entry = plain.index(struct.pack("<HHI", tag, 4, 1))
    other = plain.index(struct.pack("<HHI", 284, 3, 1))  # the planar configuration, which has a default
    data = bytearray(plain)
    data[other : other + 12] = struct.pack("<HHII", tag, 4, 1, 64)
    assert entry != other
    assert _decode(bytes(data)).reason == "too_many_pixels"


@pytest.mark.parametrize("side", [256, 512, 1024])
def test_tiles_of_pyramids_may_be_larger_than_the_picture(side: int) -> None:
    decoded = _decode(_tiled(side, width=100, height=40))
    assert decoded.reason is None
    assert (decoded.width, decoded.height) == (100, 40)
    assert _decode(_tiled(side, width=2100, height=700)).reason is None


def _jpeg(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (9, 90, 200)).save(buffer, "JPEG", quality=5)
    return buffer.getvalue()


def _lzma_of_a_large_dictionary(data: bytes) -> bytes:
    """An .xz whose header claims a dictionary of 3 GiB (xz format, §5.3.1)."""
    packed = bytearray(lzma.compress(data, format=lzma.FORMAT_XZ))
    packed[packed.index(b"\x21\x01", 12) + 2] = 39
    end = 12 + (packed[12] + 1) * 4 - 4
    packed[end : end + 4] = struct.pack("<I", zlib.crc32(bytes(packed[12:end])))
    return bytes(packed)


def _striped(data: bytes, compression: int, *, rows_per_strip: int = 64) -> bytes:
    tags = rgb_tags(64, 64, compression=compression, t278=(4, [rows_per_strip]))
    return tiff(tags | {273: (4, [DATA]), 279: (4, [len(data)])}, data)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
def test_other_bombs_in_tiffs_stay_small(tmp_path: Path) -> None:
    """Strips, which libtiff cuts to the picture's height; a huge JPEG as strip or tile; LZMA's dictionary."""
    jpeg_tags = {262: (3, [6])}
    wide, tile = _jpeg(20_000, 5000), _jpeg(4096, 4096)
    tiled: dict[int, Tag] = {322: (4, [4096]), 323: (4, [4096]), 324: (4, [DATA]), 325: (4, [len(tile)])}
    strip: dict[int, Tag] = {273: (4, [DATA]), 278: (4, [64]), 279: (4, [len(wide)])}
    bombs = {
        "many rows": _striped(_zeros(64 * 3 * 200_000), 8, rows_per_strip=200_000),
        "endless rows": _striped(_zeros(64 * 3 * 200_000), 8, rows_per_strip=2**32 - 1),
        "a wide jpeg": tiff(rgb_tags(64, 64, compression=7) | jpeg_tags | strip, wide),
        "a jpeg tile": tiff(rgb_tags(64, 64, compression=7) | jpeg_tags | tiled, tile),
        "lzma": _striped(_lzma_of_a_large_dictionary(bytes(64 * 64 * 3)), 34925),
    }
    rises = {name: _rise_bytes(tmp_path, data) for name, data in bombs.items()}
    assert max(rises.values()) < MAX_RISE_BYTES, rises


@pytest.mark.parametrize("tag", [258, 273, 279, 320, 338, 40001])
def test_a_tag_of_millions_of_numbers_is_refused_unread(tag: int) -> None:
    numbers = np.full(1_000_000, 8)
    data = tiff(rgb_tags(64, 64) | {273: (4, [DATA]), 278: (4, [64]), 279: (4, [12288]), tag: (3, numbers)})
    decoded = _decode(data + bytes(12288))
    assert decoded.reason == "metadata_bomb"
    assert decoded.warnings == (f"TIFF: 1000000 numbers in tag {tag}",)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({50706: (1, [1, 4, 0, 0])}, "TIFF: raw data of a camera"),
        ({262: (3, [32803])}, "TIFF: raw data of a camera"),
        ({254: (4, [1]), 330: (4, [8])}, "TIFF: a thumbnail in front of the raw data of a camera"),
        ({277: (3, [40])}, "TIFF: 40 samples a pixel"),
        ({259: (3, [33003])}, "TIFF: compression 33003"),
    ],
)
def test_what_is_a_tiff_but_none_of_ours(more: dict[int, Tag], words: str) -> None:
    tags = rgb_tags(64, 64) | {273: (4, [DATA]), 278: (4, [64]), 279: (4, [12288])}
    decoded = _decode(tiff(tags | more, bytes(12288)))
    assert (decoded.reason, decoded.warnings) == ("unsupported_format", (words,))


def test_a_directory_that_loops_or_ends_early_is_the_decoders_matter() -> None:
    tags = rgb_tags(64, 64) | {273: (4, [DATA]), 278: (4, [64]), 279: (4, [12288])}
    looping = bytearray(tiff(tags, bytes(12288)))
    at = 8 + 2 + 12 * len(tags)
    looping[at : at + 4] = struct.pack("<I", 8)
    assert _decode(bytes(looping)).reason is None
    assert _decode(bytes(looping[:60])).reason in ("truncated", "corrupt")
    inward: dict[int, Tag] = {34665: (4, [8]), 34853: (4, [8]), 40965: (4, [8])}  # EXIF, GPS: the same again
    assert _decode(tiff(tags | inward, bytes(12288))).reason is None


def _pages(*pages: tuple[np.ndarray, dict[int, Tag]], order: str = "<", is_big: bool = False) -> bytes:
    """RGB pages one behind the other, each with tags of its own."""
    head, code, first = (b"+\0\x08\0\0\0", "Q", 16) if is_big else (b"*\0", "I", 8)
    head = head if order == "<" else b"".join(head[i : i + 2][::-1] for i in range(0, len(head), 2))
    file = (b"II" if order == "<" else b"MM") + head + struct.pack(order + code, first)
    for number, (pixels, more) in enumerate(pages):
        height, width = pixels.shape[:2]
        at = len(file)
        tags = rgb_tags(width, height) | {258: (3, [8]), 277: (3, [3]), 278: (4, [height])} | more
        tags |= {273: (4, [0]), 279: (4, [pixels.nbytes])}
        num_bytes = (8 + 20 * len(tags) + 8) if is_big else (2 + 12 * len(tags) + 4)
        tags[273] = (4, [at + num_bytes])
        file += struct.pack(order + ("Q" if is_big else "H"), len(tags))
        for tag, (kind, values) in sorted(tags.items()):
            raw = struct.pack(order + ("H" if kind == 3 else "I"), values[0])
            file += struct.pack(order + "HH" + code, tag, kind, 1) + raw.ljust(8 if is_big else 4, b"\0")
        behind = at + num_bytes + pixels.nbytes
        file += struct.pack(order + code, 0 if number == len(pages) - 1 else behind) + pixels.tobytes()
    return file


def _noise(seed: int, width: int, height: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("order", "is_big"), [("<", False), (">", False), ("<", True)])
@pytest.mark.parametrize("marks", [{254: (4, [1])}, {255: (3, [2])}, {254: (4, [4])}])
def test_a_thumbnail_or_a_mask_in_front_is_passed_over(
    marks: dict[int, Tag], is_big: bool, order: str
) -> None:
    small, picture, other = _noise(0, 16, 12), _noise(1, 64, 48), _noise(2, 80, 60)
    for pages in ([(small, marks)], [(small, marks), (small[:6], marks)]):
        data = _pages(*pages, (picture, {}), (other, {}), order=order, is_big=is_big)
        decoded = _decode(data)
        assert decoded.warnings == ("thumbnail_skipped",)
        assert decoded.pixels is not None
        assert np.array_equal(decoded.pixels, picture)
    data = _pages((picture, {}), (small, marks), (other, {}), order=order, is_big=is_big)
    decoded = _decode(data)
    assert decoded.warnings == ()
    assert decoded.pixels is not None
    assert np.array_equal(decoded.pixels, picture)


def test_of_nothing_but_thumbnails_the_largest_is_taken() -> None:
    reduced: dict[int, Tag] = {254: (4, [1])}
    sides = (16, 64, 32)
    decoded = _decode(_pages(*((_noise(side, side, side), reduced) for side in sides)))
    assert decoded.warnings == ("thumbnail_skipped",)
    assert decoded.pixels is not None
    assert np.array_equal(decoded.pixels, _noise(64, 64, 64))
    assert _decode(_pages((_noise(0, 16, 16), reduced))).warnings == ()


def test_the_picture_behind_a_thumbnail_is_turned_and_refused_as_any_other() -> None:
    thumbnail, picture = (_noise(0, 16, 12), {254: (4, [1])}), _noise(1, 64, 48)
    decoded = _decode(_pages(thumbnail, (picture, {274: (3, [6])})))
    assert decoded.pixels is not None
    assert np.array_equal(decoded.pixels, np.rot90(picture, -1))
    decoded = _decode(_pages(thumbnail, (picture, {259: (3, [33003])})))
    assert decoded.reason == "unsupported_format"
    decoded = _decode(_pages(thumbnail, (picture, {256: (4, [60_000]), 257: (4, [60_000])})))
    assert decoded.reason == "too_many_pixels"


def test_thumbnails_that_point_at_each_other() -> None:
    thumbnail: dict[int, Tag] = {254: (4, [1])}
    looping = bytearray(_pages((_noise(0, 16, 12), thumbnail), (_noise(1, 8, 8), thumbnail)))
    num_tags = struct.unpack_from("<H", looping, 8)[0]
    second = struct.unpack_from("<I", looping, 8 + 2 + 12 * num_tags)[0]
    struct.pack_into("<I", looping, second + 2 + 12 * num_tags, 8)
    decoded = _decode(bytes(looping))
    assert decoded.pixels is not None
    assert np.array_equal(decoded.pixels, _noise(0, 16, 12))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("more", "refusal"),
    [
        ({}, None),
        ({"t262": (3, [32803])}, ("unsupported_format", "raw data of a camera")),
        ({"t259": (3, [9999])}, ("unsupported_format", "compression 9999")),
        ({"t277": (3, [9])}, ("unsupported_format", "9 samples a pixel")),
        ({"t400": (3, [0] * (MAX_NUMBERS + 1))}, ("metadata_bomb", f"{MAX_NUMBERS + 1} numbers in tag 400")),
        ({"t400": (1, [0] * (MAX_NUMBERS + 1))}, None),  # bytes, which nobody takes apart
        (
            {"t322": (4, [4096]), "t323": (4, [4096])},
            ("too_many_pixels", "a tile of 50331648 bytes for a picture of 768"),
        ),
    ],
)
def test_what_a_directory_asks_for(order: str, more: dict[str, Tag], refusal: tuple[str, str] | None) -> None:
    assert (
        refuse_tiff(tiff(rgb_tags(16, 16) | {int(k[1:]): v for k, v in more.items()}, order=order)) == refusal
    )


def test_what_is_no_directory_is_left_to_the_decoder() -> None:
    for data in (b"", b"II*\0", b"II*\0\xff\xff\xff\xff", tiff(rgb_tags(8, 8))[:40]):
        assert refuse_tiff(data) is None
        assert without_thumbnails(data) == data


def test_a_picture_goes_before_its_thumbnail() -> None:
    thumbnail = tiff(rgb_tags(4, 4) | {254: (4, [1])})
    picture = tiff(rgb_tags(64, 64))[8:]
    at = len(thumbnail)
    end = 8 + 2 + 12 * (len(rgb_tags(4, 4)) + 1)
    data = thumbnail[:end] + struct.pack("<I", at) + thumbnail[end + 4 :] + picture
    assert without_thumbnails(data) == data[:4] + struct.pack("<I", at) + data[8:]
    assert without_thumbnails(tiff(rgb_tags(4, 4))) == tiff(rgb_tags(4, 4))
