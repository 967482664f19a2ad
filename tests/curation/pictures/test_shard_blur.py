"""Blurred faces: what changes and what does not, formats kept, the same bytes every time."""

import io

import numpy as np
import pytest
from PIL import Image, features

from curation.pictures.blur import BlurConfig, blur_faces, encode_like

CONFIG = BlurConfig()
BOX = np.array([[60.0, 40.0, 40.0, 50.0]])


def noise(height: int = 150, width: int = 200) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def photo(height: int = 150, width: int = 200) -> np.ndarray:
    coarse = np.random.default_rng(1).integers(0, 256, (8, 10, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def saved(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)  # type: ignore[arg-type]
    return out.getvalue()


def test_the_face_goes_and_the_rest_stays() -> None:
    before = noise()
    after = blur_faces(before, BOX, CONFIG)
    inside = (slice(50, 80), slice(70, 90))
    assert before[inside].std() > 60
    assert after[inside].std() < 10
    # An ellipse that reaches a fifth of the box's sides beyond it, and a rim that fades over a few pixels.
    y, x = np.mgrid[:150, :200]
    distance = np.hypot((x - 80) / (0.7 * 40 + 12), (y - 65) / (0.7 * 50 + 12))
    assert (after[distance > 1] == before[distance > 1]).all()
    assert (after != before).any()
    assert after.tobytes() == blur_faces(before.copy(), BOX, CONFIG).tobytes()


def test_larger_faces_are_blurred_more() -> None:
    """Stripes of 8 px go in a large face and stay to be seen in a small one."""
    stripes = np.repeat((np.arange(400) // 8 % 2 * 255).astype(np.uint8)[None, :], 400, axis=0)
    picture = np.repeat(stripes[:, :, None], 3, axis=2)
    large = blur_faces(picture, np.array([[100.0, 100.0, 200.0, 200.0]]), CONFIG)[200, 180:220]
    small = blur_faces(picture, np.array([[190.0, 190.0, 12.0, 12.0]]), CONFIG)[196, 192:200]
    assert np.ptp(large.astype(int)) < 8
    assert np.ptp(small.astype(int)) > 60


def test_faces_at_the_edges() -> None:
    before = photo(60, 50)
    boxes = np.array([[-10.0, -10.0, 30.0, 30.0], [40.0, 50.0, 30.0, 30.0], [0.0, 0.0, 50.0, 60.0]])
    assert blur_faces(before, boxes, CONFIG).shape == before.shape
    assert (blur_faces(before, boxes[:0], CONFIG) == before).all()


@pytest.mark.parametrize(
    ("kind", "options", "extension", "exact"),
    [
        ("PNG", {}, "png", True),
        ("BMP", {}, "bmp", True),
        ("TIFF", {}, "tif", True),
        ("WEBP", {"lossless": True}, "webp", True),
        ("WEBP", {"quality": 80}, "webp", False),
        ("JPEG", {"quality": 90}, "jpg", False),
        ("AVIF", {"quality": 80}, "avif", False),
    ],
)
def test_a_format_is_kept(kind: str, options: dict[str, object], extension: str, exact: bool) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    pixels = photo()
    original = saved(pixels, kind, **options)
    data, ext = encode_like(original, pixels, file_format=kind, quality=92)
    assert ext == extension
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == (kind, (200, 150))
        got = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(got - pixels).mean() < (0.001 if exact else 3)
    assert encode_like(original, pixels.copy(), file_format=kind, quality=92) == (data, ext)


def test_a_gif_becomes_a_png() -> None:
    pixels = photo()
    data, ext = encode_like(saved(pixels, "GIF"), pixels, file_format="GIF", quality=92)
    assert ext == "png"
    with Image.open(io.BytesIO(data)) as image:
        assert (np.asarray(image) == pixels).all()


@pytest.mark.parametrize(("quality", "subsampling"), [(60, 2), (75, 1), (95, 0)])
def test_a_jpeg_keeps_its_quantisation(quality: int, subsampling: int) -> None:
    original = saved(photo(), "JPEG", quality=quality, subsampling=subsampling)
    with Image.open(io.BytesIO(original)) as image:
        pixels = np.array(image)
        tables = image.quantization  # type: ignore[attr-defined]
    data, _ = encode_like(original, pixels, file_format="JPEG", quality=1)
    with Image.open(io.BytesIO(data)) as image:
        assert image.quantization == tables  # type: ignore[attr-defined]
        assert not image.getexif()
        assert np.abs(np.asarray(image).astype(int) - pixels).mean() < 1.5
    assert abs(len(data) / len(original) - 1) < 0.1


def test_grey_and_cmyk_jpegs() -> None:
    grey = Image.fromarray(photo()).convert("L")
    out = io.BytesIO()
    grey.save(out, "JPEG", quality=88)
    data, _ = encode_like(out.getvalue(), np.asarray(grey.convert("RGB")), file_format="JPEG", quality=92)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "L"
    out = io.BytesIO()
    Image.fromarray(photo()).convert("CMYK").save(out, "JPEG", quality=88)
    data, _ = encode_like(out.getvalue(), photo(), file_format="JPEG", quality=92)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "RGB"
        assert np.abs(np.asarray(image).astype(int) - photo()).mean() < 3


def renumbered(jpeg: bytes, numbers: dict[int, int]) -> bytes:
    """The same picture with its quantisation tables under other numbers, as a writer may choose them."""
    data = bytearray(jpeg)
    position = 2
    while data[position + 1] != 0xDA:
        size = int.from_bytes(data[position + 2 : position + 4], "big")
        if data[position + 1] == 0xDB:
            for at in range(position + 4, position + 2 + size, 65):
                data[at] = numbers[data[at]]
        if data[position + 1] == 0xC0:
            for component in range(data[position + 9]):
                at = position + 10 + 3 * component + 2
                data[at] = numbers[data[at]]
        position += 2 + size
    return bytes(data)


@pytest.mark.parametrize("numbers", [{0: 1, 1: 3}, {0: 0, 1: 2}, {0: 2}])
def test_a_jpeg_numbers_its_tables_as_it_likes(numbers: dict[int, int]) -> None:
    is_grey = len(numbers) == 1
    drawn = Image.fromarray(photo()).convert("L" if is_grey else "RGB")
    out = io.BytesIO()
    drawn.save(out, "JPEG", quality=70)
    original = renumbered(out.getvalue(), numbers)
    with Image.open(io.BytesIO(original)) as image:
        pixels, tables = np.array(image.convert("RGB")), image.quantization  # type: ignore[attr-defined]
    assert set(tables) == set(numbers.values())
    data, _ = encode_like(original, pixels, file_format="JPEG", quality=1)
    with Image.open(io.BytesIO(data)) as image:
        kept = list(image.quantization.values())  # type: ignore[attr-defined]
        assert kept == [tables[number] for number in sorted(tables)]
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - pixels).mean() < 1.5


def test_what_pillow_cannot_open_or_write_like_is_written_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture never ends the step."""
    pixels = photo()
    data, extension = encode_like(b"\xff\xd8 no header", pixels, file_format="JPEG", quality=92)
    with Image.open(io.BytesIO(data)) as image:
        assert (extension, image.size) == ("jpg", (200, 150))
        assert np.abs(np.asarray(image).astype(int) - pixels).mean() < 3

    def refuse(*_: object) -> None:
        raise ValueError("encoder error")

    monkeypatch.setitem(Image.SAVE, "WEBP", refuse)
    data, extension = encode_like(saved(pixels, "PNG"), pixels, file_format="WEBP", quality=92)
    with Image.open(io.BytesIO(data)) as image:
        assert (extension, image.format) == ("png", "PNG")
        assert (np.asarray(image) == pixels).all()
