"""decode: honest RGB from every mode, truncation found, caps on the header, nothing raised for bad data."""

import io
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from curation.pictures.costs import webp_size
from curation.pictures.decode import DecodeConfig, Decoded, decode
from curation.pictures.jpeg import choose_reduction
from curation.schema import REASONS

FULL = 10_000  # px needed that no test picture has: nothing is scaled


def _picture(width: int = 96, height: int = 64, *, seed: int = 0) -> Image.Image:
    """A smooth colour picture with some edges: what codecs keep well."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def _encode(image: Image.Image, file_format: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _decode(data: bytes, *, need_side_px: int = FULL, **caps: int) -> Decoded:
    return decode(data, need_side_px=need_side_px, config=DecodeConfig(**caps))  # type: ignore[arg-type]


def _pixels(data: bytes, *, need_side_px: int = FULL) -> np.ndarray:
    decoded = _decode(data, need_side_px=need_side_px)
    assert decoded.reason is None
    assert decoded.pixels is not None
    assert decoded.pixels.flags.c_contiguous
    return decoded.pixels


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 1}]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_equals_pillow(mode: str, options: dict[str, object]) -> None:
    data = _encode(_picture(131, 77).convert(mode), quality=85, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(_pixels(data) - expected).max() <= 1  # two builds of libjpeg-turbo


def test_cmyk_jpeg_goes_the_way_of_pillow() -> None:
    data = _encode(_picture().convert("CMYK"), quality=95)
    assert np.abs(_pixels(data).astype(int) - np.asarray(_picture())).mean() < 4


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF"])
def test_formats(file_format: str) -> None:
    decoded = _decode(_encode(_picture(), file_format))
    assert (decoded.format, decoded.width, decoded.height) == (file_format, 96, 64)
    assert decoded.pixels is not None
    assert np.abs(decoded.pixels.astype(int) - np.asarray(_picture())).mean() < 12  # GIF has 256 colours


@pytest.mark.parametrize(
    ("short", "need", "reduction"),
    [
        (447, 224, 1),
        (448, 224, 2),
        (1343, 224, 2),
        (1344, 224, 4),
        (2688, 224, 8),
        (10**6, 224, 8),
        (63, 32, 1),
    ],
)
def test_reduction_leaves_what_is_needed(short: int, need: int, reduction: int) -> None:
    assert choose_reduction(short, need) == reduction
    assert short >= reduction * need or reduction == 1


@pytest.mark.parametrize("size", [(448, 600), (450, 449), (1001, 897), (1347, 1801), (2689, 2700)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_scaled_jpeg_is_the_small_picture(size: tuple[int, int], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _encode(_picture(*size), quality=92, exif=exif)
    decoded = _decode(data, need_side_px=224)
    assert decoded.pixels is not None
    width, height = size if orientation == 1 else size[::-1]
    assert (decoded.width, decoded.height) == (width, height)
    assert decoded.pixels.shape[0] < height
    assert min(decoded.pixels.shape[:2]) >= 224
    full = Image.fromarray(_pixels(data))
    small = full.resize((224, 224), Image.Resampling.BICUBIC)
    ours = Image.fromarray(decoded.pixels).resize((224, 224), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(ours, int) - np.asarray(small, int)).mean() < 1


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(10))
def test_orientation_is_applied_once(file_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _encode(_picture(), file_format, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    decoded = _decode(data)
    assert decoded.pixels is not None
    assert (decoded.width, decoded.height) == expected.size
    assert np.abs(decoded.pixels.astype(int) - np.asarray(expected)).max() <= 1


def test_jpeg_is_never_silently_cut_short() -> None:
    for options in ({}, {"progressive": True}):
        data = _encode(_picture(), quality=80, **options)
        whole = _pixels(data)
        for length in range(1, len(data)):
            decoded = _decode(data[:length])
            if decoded.reason is None:  # the end marker alone may lack
                assert length >= len(data) - 2
                assert not options
                assert decoded.warnings == ("missing_end_marker",)
                assert np.array_equal(decoded.pixels, whole)
            else:
                assert decoded.reason in ("truncated", "corrupt", "not_an_image")
    assert _decode(_encode(_picture(), quality=80)[:-2]).reason is None


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "GIF", "TIFF", "AVIF", "BMP"])
def test_other_formats_are_never_silently_cut_short(file_format: str) -> None:
    data = _encode(_picture(), file_format)
    whole = _pixels(data)
    for length in [*range(1, 60), *range(60, len(data), max(1, len(data) // 60)), len(data) - 1]:
        decoded = _decode(data[:length])
        assert decoded.reason is not None or np.array_equal(decoded.pixels, whole)


def test_png_lacking_its_end_is_kept_and_said_so() -> None:
    data = _encode(_picture(), "PNG")
    decoded = _decode(data[:-12])
    assert decoded.reason is None
    assert decoded.warnings == ("missing_end_marker",)


def test_damaged_scan_is_corrupt() -> None:
    data = bytearray(_encode(_picture(320, 240), quality=90))
    middle = len(data) // 2
    data[middle : middle + 3] = b"\xff\xd9\x00"  # an end marker in the middle
    assert _decode(bytes(data)).reason in ("corrupt", "truncated")


def test_sixteen_bit_float_and_one_bit() -> None:
    ramp = np.linspace(0, 65535, 96 * 64).reshape(64, 96)
    expected = np.round(ramp / 257)
    for file_format in ("PNG", "TIFF"):
        pixels = _pixels(_encode(Image.fromarray(ramp.astype(np.uint16)), file_format))
        assert np.abs(pixels - expected[..., None]).max() <= 1
    for scale in (1 / 65535, 255 / 65535):
        pixels = _pixels(_encode(Image.fromarray((ramp * scale).astype(np.float32)), "TIFF"))
        assert np.abs(pixels - expected[..., None]).max() <= 1
    checks = (np.indices((64, 96)).sum(axis=0) % 2).astype(bool)
    assert np.array_equal(_pixels(_encode(Image.fromarray(checks), "PNG"))[..., 0], checks * 255)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 1e4])
def test_float_of_unknown_range_is_unsupported(bad: float) -> None:
    values = np.full((20, 20), 0.5, np.float32)
    values[3, 4] = bad
    assert _decode(_encode(Image.fromarray(values), "TIFF")).reason == "unsupported_format"


def test_a_mode_without_an_honest_rgb() -> None:
    decoded = _decode(_encode(Image.new("LAB", (20, 20)), "TIFF"))
    assert decoded.reason == "unsupported_format"
    assert decoded.warnings == ("lvd: mode LAB has no honest RGB",)


def test_transparency_lies_over_white() -> None:
    red = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    red.putpixel((0, 0), (255, 0, 0, 255))
    red.putpixel((1, 0), (255, 0, 0, 128))
    for file_format in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
        pixels = _pixels(_encode(red, file_format, **options))
        assert pixels[0, 0].tolist() == [255, 0, 0]
        assert pixels[0, 1].tolist() == [255, 127, 127]
        assert pixels[5, 5].tolist() == [255, 255, 255]
    grey = Image.new("LA", (20, 20), (10, 0))
    assert (_pixels(_encode(grey, "PNG")) == 255).all()
    palette = Image.new("P", (20, 20), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    assert _pixels(_encode(palette, "PNG"))[0, 0].tolist() == [9, 8, 7]
    assert (_pixels(_encode(palette, "PNG", transparency=1)) == 255).all()
    assert (
        _pixels(_encode(Image.new("RGB", (20, 20), (1, 2, 3)), "PNG", transparency=(1, 2, 3))) == 255
    ).all()


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_first_frame(file_format: str) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ((200, 30, 40), (0, 200, 0), (0, 0, 200))]
    data = _encode(frames[0], file_format, save_all=True, append_images=frames[1:])
    assert np.abs(_pixels(data).reshape(-1, 3).mean(axis=0) - (200, 30, 40)).max() < 5


def _png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + checksum + struct.pack(">I", 99) + b"IDAT"


def test_caps() -> None:
    data = _encode(_picture(), "PNG")
    assert _decode(b"").reason == "empty"
    assert _decode(data, max_file_bytes=len(data)).reason is None
    assert _decode(data, max_file_bytes=len(data) - 1).reason == "file_too_large"
    for picture in (data, _encode(_picture()), _encode(_picture().convert("CMYK"))):
        assert _decode(picture, max_pixels=96 * 64).reason is None
        refused = _decode(picture, max_pixels=96 * 64 - 1)
        assert (refused.reason, refused.width, refused.height) == ("too_many_pixels", 96, 64)
    for side in (9_000, 12_000, 60_000, 2**31 - 1, 2**32 - 1):
        assert _decode(_png_header(side, side)).reason == "too_many_pixels"


def test_scans_are_counted_in_the_picture_alone() -> None:
    data = _encode(_picture(), progressive=True)
    num_scans = data.count(b"\xff\xda")
    assert _decode(data, max_jpeg_scans=num_scans).reason is None
    refused = _decode(data, max_jpeg_scans=num_scans - 1)
    assert (refused.reason, refused.warnings) == ("corrupt", ("too_many_scans",))
    assert _decode(data + data * 9, max_jpeg_scans=num_scans).reason is None  # pictures behind the first


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0", "not_an_image"),
        (b"<!doctype html><html><svg/></html>", "not_an_image"),
        (b'<?xml version="1.0"?><svg xmlns="x"/>', "unsupported_format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported_format"),
        (b"P6\n9 9\n255\n" + bytes(243), "unsupported_format"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported_format"),
        (b"\r\n" + _encode(_picture()), "not_an_image"),
        (b"\xff\xd8\xff\xd9", "corrupt"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "corrupt"),
    ],
)
def test_what_is_no_picture(data: bytes, reason: str) -> None:
    assert _decode(data).reason == reason


def test_random_damage_never_raises() -> None:
    rng = np.random.default_rng(0)
    for file_format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        data = np.frombuffer(_encode(_picture(), file_format), np.uint8)
        for _ in range(150):
            damaged = data.copy()
            places = rng.integers(0, min(len(data), rng.choice([64, len(data)])), rng.integers(1, 12))
            damaged[places] = rng.integers(0, 256, len(places))
            decoded = _decode(damaged.tobytes(), need_side_px=32, max_pixels=1_000_000)
            assert decoded.reason is None or decoded.reason in REASONS["describe"]
            assert (decoded.pixels is None) == (decoded.reason is not None)


def test_threads_agree() -> None:
    files = [
        _encode(_picture(200, 150, seed=i), f) for i in range(4) for f in ("JPEG", "PNG", "WEBP", "TIFF")
    ]
    alone = [_pixels(data, need_side_px=64) for data in files]
    together: list[list[np.ndarray]] = [[] for _ in range(4)]

    def work(results: list[np.ndarray]) -> None:
        results.extend(_pixels(data, need_side_px=64) for data in files)

    threads = [threading.Thread(target=work, args=(results,)) for results in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for results in together:
        assert all(np.array_equal(a, b) for a, b in zip(alone, results, strict=True))


def test_real_photographs_equal_pillow(shared_dir: Path) -> None:
    files = sorted((shared_dir / "real" / "pool").rglob("*.jpg"))
    for i in np.random.default_rng(0).choice(len(files), 100, replace=False):
        data = files[i].read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
        assert np.abs(_pixels(data) - expected).max() <= 1
        assert simplejpeg.is_jpeg(data)


_WITHIN = """
import io, resource, sys
import numpy as np
from PIL import Image
from curation.pictures.decode import DecodeConfig, decode
form, options = sys.argv[1], {"lossless": True} if sys.argv[2] == "lossless" else {}
colours = np.random.default_rng(0).integers(0, 256, (30, 30, 3), np.uint8)
out = io.BytesIO()
Image.fromarray(np.kron(colours, np.ones((80, 80, 1), np.uint8))).save(out, form, **options)
caps, data = DecodeConfig(), out.getvalue()
[in_use] = [int(l.split()[1]) << 10 for l in open("/proc/self/status") if l.startswith("VmSize")]
for more_mb in range(150, 0, -10):
    resource.setrlimit(resource.RLIMIT_AS, (in_use + (more_mb << 20), resource.RLIM_INFINITY))
    try:
        print(decode(data, need_side_px=10_000, config=caps).reason)
    except MemoryError:
        print("no memory")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
@pytest.mark.parametrize(
    ("file_format", "options"), [("PNG", ""), ("JPEG", ""), ("WEBP", ""), ("WEBP", "lossless"), ("TIFF", "")]
)
def test_want_of_memory_is_no_damage(file_format: str, options: str) -> None:
    program = [sys.executable, "-c", _WITHIN, file_format, options]
    said = subprocess.run(program, capture_output=True, text=True, check=True, timeout=100).stdout.split("\n")
    assert set(said) <= {"None", "no memory", ""}


def test_a_webp_tells_its_size() -> None:
    for options in ({}, {"lossless": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0"}):
        assert webp_size(_encode(_picture(131, 77), "WEBP", **options)) == (131, 77)
    assert webp_size(b"RIFF\0\0\0\0WEBPVP8X") == (0, 0)
