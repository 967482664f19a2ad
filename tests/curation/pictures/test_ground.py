"""ground: transparent pictures are laid on what keeps them, and the row says so where that is not white."""

import io
import struct

import numpy as np
import pytest
from pictures import png_16
from PIL import Image, ImageDraw

from curation.pictures.decode import DecodeConfig, Decoded, decode
from curation.pictures.ground import BLACK, GREYS, WHITE, ground_of


def _decode(image: Image.Image, file_format: str = "PNG", **options: object) -> Decoded:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)  # type: ignore[arg-type]
    return decode(buffer.getvalue(), need_side_px=10_000, config=DecodeConfig())


def _strokes(ink: tuple[int, ...], below: tuple[int, ...], *, seed: int = 0) -> Image.Image:
    """Outlines of ellipses on a clear ground; `below` is the colour that the clear pixels have."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGBA", (160, 120), below)
    pen = ImageDraw.Draw(picture)
    for _ in range(6):
        x, y = map(int, rng.integers(0, 100, 2))
        pen.ellipse([x, y, x + 50, y + 30], outline=ink, width=5)
    return picture


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("below", [(255, 255, 255, 0), (0, 0, 0, 0), (40, 90, 7, 0)])
def test_white_strokes_are_laid_on_black(file_format: str, below: tuple[int, ...]) -> None:
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    seen = []
    for seed in range(5):
        picture = _strokes((255, 255, 255, 255), below, seed=seed)
        decoded = _decode(picture, file_format, **options)
        assert decoded.pixels is not None
        assert decoded.warnings == ("laid_on_black",)
        # Exactly the strokes: white on black.
        assert np.array_equal(decoded.pixels[..., 0], np.asarray(picture.getchannel("A")))
        assert decoded.pixels.std() > 50
        seen.append(decoded.pixels.tobytes())
    assert len(set(seen)) == 5


@pytest.mark.parametrize("ink", [(0, 0, 0), (128, 128, 128), (255, 255, 0), (0, 255, 255), (200, 30, 40)])
def test_any_other_colour_is_laid_on_white(ink: tuple[int, ...]) -> None:
    decoded = _decode(_strokes((*ink, 255), (0, 0, 0, 0)))
    assert decoded.pixels is not None
    assert decoded.warnings == ()
    assert decoded.pixels[0, 0].tolist() == [255, 255, 255]
    assert decoded.pixels.std() > 20


@pytest.mark.parametrize("ink", [(250, 252, 255, 255), (255, 255, 255, 120), (255, 255, 255, 20)])
def test_nearly_white_or_faint_strokes_are_seen(ink: tuple[int, ...]) -> None:
    decoded = _decode(_strokes(ink, (255, 255, 255, 0)))
    assert decoded.pixels is not None
    assert decoded.warnings == ("laid_on_black",)
    assert decoded.pixels.std() > 5


def test_a_coloured_dot_does_not_hide_that_the_rest_is_white() -> None:
    picture = _strokes((255, 255, 255, 255), (255, 255, 255, 0))
    ImageDraw.Draw(picture).rectangle([2, 2, 8, 8], fill=(255, 0, 0, 255))
    decoded = _decode(picture)
    assert decoded.warnings == ("laid_on_black",)


@pytest.mark.parametrize("mode", ["LA", "PA", "P", "L", "RGB"])
def test_every_mode_with_transparency(mode: str) -> None:
    """LA and PA, a palette with a clear entry, and a grey or colour that stands for clear."""
    strokes = _strokes((255, 255, 255, 255), (0, 0, 0, 0))
    drawn = np.asarray(strokes.getchannel("A")) > 0
    options: dict[str, object] = {}
    if mode in ("LA", "PA"):
        picture, file_format = strokes.convert("LA"), "PNG"
        if mode == "PA":
            indices = np.dstack([drawn, drawn * 255]).astype(np.uint8)
            picture, file_format = Image.frombytes("PA", strokes.size, indices.tobytes()), "TIFF"
            picture.putpalette([9, 9, 9, 255, 255, 255])
    elif mode == "P":
        picture, file_format = Image.fromarray(drawn.astype(np.uint8), "P"), "PNG"
        picture.putpalette([255, 255, 255, 255, 255, 255])
        options["transparency"] = 0
    else:
        grey = Image.fromarray(np.where(drawn, 255, 254).astype(np.uint8))
        picture, file_format = grey.convert(mode), "PNG"
        options["transparency"] = 254 if mode == "L" else (254, 254, 254)
    decoded = _decode(picture, file_format, **options)
    assert decoded.pixels is not None
    assert "laid_on_black" in decoded.warnings
    assert np.array_equal(decoded.pixels[..., 0] > 128, drawn)


def test_gif_of_white_strokes() -> None:
    drawn = np.asarray(_strokes((255, 255, 255, 255), (0, 0, 0, 0)).getchannel("A")) > 0
    picture = Image.fromarray(drawn.astype(np.uint8), "P")
    picture.putpalette([9, 9, 9, 255, 255, 255])
    decoded = _decode(picture, "GIF", transparency=0)
    assert decoded.pixels is not None
    assert decoded.warnings == ("laid_on_black",)
    assert np.array_equal(decoded.pixels[..., 0] > 128, drawn)


def test_a_bright_photograph_with_clear_corners_stays_on_white() -> None:
    rng = np.random.default_rng(0)
    pixels = np.full((120, 160, 4), 255, np.uint8)
    pixels[..., :3] = rng.integers(225, 256, (120, 160, 3))
    pixels[:20, :20, 3] = 0
    decoded = _decode(Image.fromarray(pixels))
    assert decoded.pixels is not None
    assert decoded.warnings == ()
    assert (decoded.pixels[:20, :20] == 255).all()


def test_a_page_with_a_clear_margin_stays_on_white() -> None:
    pixels = np.full((120, 160, 4), 255, np.uint8)
    pixels[20:100:4, 20:140:3, :3] = 0
    pixels[:8, :, 3] = 0
    decoded = _decode(Image.fromarray(pixels))
    assert decoded.warnings == ()


def test_nothing_drawn_is_said() -> None:
    decoded = _decode(Image.new("RGBA", (40, 30), (255, 0, 0, 0)))
    assert decoded.pixels is not None
    assert (decoded.pixels == 255).all()
    assert decoded.warnings == ("fully_transparent",)


def test_large_pictures_are_measured_on_a_grid_that_loses_nothing() -> None:
    """One white line, thinner than the grid and between its points, in 2.25 million pixels."""
    for column in range(4):
        pixels = np.zeros((1500, 1500, 4), np.uint8)
        pixels[:, 100 + column] = 255
        decoded = _decode(Image.fromarray(pixels))
        assert decoded.pixels is not None
        assert decoded.warnings == ("laid_on_black",)
        assert (decoded.pixels[:, 100 + column] == 255).all()


def _icon(seed: int, block: tuple[int, int, int]) -> Image.Image:
    """White strokes beside a block of another colour, the same in all."""
    picture = _strokes((255, 255, 255, 255), (0, 0, 0, 0), seed=seed)
    ImageDraw.Draw(picture).rectangle([100, 60, 155, 115], fill=(*block, 255))
    return picture


@pytest.mark.parametrize("block", [(0, 0, 0), (10, 5, 12), (255, 0, 0), (128, 128, 128)])
@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_white_strokes_beside_another_colour_are_seen(block: tuple[int, int, int], file_format: str) -> None:
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    ground = "laid_on_grey" if max(block) < 16 else "laid_on_black"
    seen = set()
    for seed in range(4):
        picture = _icon(seed, block)
        decoded = _decode(picture, file_format, **options)
        assert decoded.pixels is not None
        assert decoded.warnings == (ground,)
        drawn = np.asarray(picture.getchannel("A")) > 0
        below = decoded.pixels[~drawn][0].astype(int)
        assert (np.abs(decoded.pixels[drawn].astype(int) - below).max(axis=1) >= 16).all()
        seen.add(decoded.pixels.tobytes())
    assert len(seen) == 4


def test_the_grey_is_one_on_which_the_most_is_seen() -> None:
    picture = _icon(0, (0, 0, 0))
    ImageDraw.Draw(picture).rectangle([0, 90, 60, 119], fill=(128, 128, 128, 255))
    decoded = _decode(picture)
    assert decoded.pixels is not None
    assert decoded.warnings == ("laid_on_grey",)
    drawn = np.asarray(picture.getchannel("A")) > 0
    assert decoded.pixels[~drawn].tolist() == [[64, 64, 64]] * int((~drawn).sum())


def test_highlights_of_a_photograph_cut_out_stay_on_white() -> None:
    pixels = np.zeros((120, 160, 4), np.uint8)
    pixels[30:90, 40:120] = 255
    pixels[30:90, 40:120, :3] = np.random.default_rng(0).integers(40, 200, (60, 80, 3))
    pixels[40:48, 60:100, :3] = 255
    decoded = _decode(Image.fromarray(pixels))
    assert decoded.warnings == ()


def test_a_photograph_of_black_and_white_in_an_ellipse_stays_on_white() -> None:
    picture = Image.new("RGBA", (160, 120))
    ImageDraw.Draw(picture).ellipse([0, 0, 159, 119], fill=(255, 255, 255, 255))
    ImageDraw.Draw(picture).rectangle([40, 30, 90, 90], fill=(0, 0, 0, 255))
    decoded = _decode(picture)
    assert decoded.warnings == ()


def _scene(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    scene = np.full((120, 160, 4), 30, np.uint8)
    for _ in range(8):
        x, y = rng.integers(0, 130), rng.integers(0, 90)
        scene[y : y + 30, x : x + 30, :3] = rng.integers(0, 256, 3)
    return scene


def _bmp_with_alpha_mask(pixels: np.ndarray) -> bytes:
    """A BITMAPV4HEADER of 32 bits, BI_BITFIELDS, as of many programs that write X8R8G8B8."""
    height, width = pixels.shape[:2]
    data = pixels[::-1, :, [2, 1, 0, 3]].tobytes()
    header = struct.pack("<IiiHHIIiiII", 108, width, height, 1, 32, 3, len(data), 2835, 2835, 0, 0)
    header += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs"
    return b"BM" + struct.pack("<IHHI", 122 + len(data), 0, 0, 122) + header.ljust(108, b"\0") + data


@pytest.mark.parametrize("opacity", [0, 2, 15])
def test_colours_below_an_alpha_that_hides_everything_are_the_picture(opacity: int) -> None:
    seen = set()
    for seed in range(4):
        pixels = _scene(seed)
        pixels[..., 3] = opacity
        found = [_decode(Image.fromarray(pixels), file_format) for file_format in ("PNG", "TIFF")]
        found.append(_decode(Image.fromarray(pixels), "WEBP", lossless=True, exact=True))
        bmp = _bmp_with_alpha_mask(pixels)
        found.append(decode(bmp, need_side_px=10_000, config=DecodeConfig()))
        for decoded in found:
            assert decoded.pixels is not None
            assert decoded.warnings == ("alpha_ignored",)
            assert np.array_equal(decoded.pixels, pixels[..., :3])
        seen.add(found[0].pixels.tobytes() if found[0].pixels is not None else b"")
    assert len(seen) == 4


@pytest.mark.parametrize("bands", [2, 4])
@pytest.mark.parametrize("most", [255, 65_535])
def test_colours_of_sixteen_bits_below_an_alpha_that_hides_everything(bands: int, most: int) -> None:
    scene = _scene(0)[..., :3].astype(int) * (most // 255)
    colours = scene if bands == 4 else scene[..., :1]
    decoded = decode(
        png_16(np.dstack([colours, np.zeros((120, 160), int)])), need_side_px=10_000, config=DecodeConfig()
    )
    assert decoded.pixels is not None
    assert "alpha_ignored" in decoded.warnings
    assert np.array_equal(decoded.pixels, np.broadcast_to(colours // (most // 255), (120, 160, 3)))


def test_a_palette_of_which_every_colour_is_clear() -> None:
    indices = np.indices((40, 60)).sum(axis=0).astype(np.uint8)
    picture = Image.fromarray(indices, "P")
    picture.putpalette([level for level in range(256) for _ in range(3)])
    decoded = _decode(picture, transparency=bytes(256))
    assert decoded.pixels is not None
    assert decoded.warnings == ("alpha_ignored",)
    assert np.array_equal(decoded.pixels[..., 0], indices)


def test_an_alpha_of_zero_and_one_is_one_of_a_single_bit() -> None:
    drawn = np.asarray(_strokes((0, 0, 0, 255), (0, 0, 0, 0)).getchannel("A")) > 0
    pixels = np.zeros((120, 160, 4), np.uint8)
    pixels[..., 3] = drawn
    decoded = _decode(Image.fromarray(pixels))
    assert decoded.pixels is not None
    assert decoded.warnings == ("alpha_stretched",)
    assert np.array_equal(decoded.pixels[..., 0], np.where(drawn, 0, 255))


def _stencil(seed: int, block: tuple[int, int, int], *, size: tuple[int, int], num: int) -> np.ndarray:
    """Squares cut out of a white area, with a block of another colour on its left."""
    width, height = size
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 4), 255, np.uint8)
    pixels[:, : width * 4 // 9, :3] = block
    for _ in range(num):
        x, y = rng.integers(width // 2, width - 25), rng.integers(0, height - 15)
        pixels[y : y + 15, x : x + 15, 3] = 0
    return pixels


@pytest.mark.parametrize("size", [(160, 120), (1500, 1000)])
@pytest.mark.parametrize("block", [(0, 0, 0), (255, 0, 0), (255, 255, 255)])
def test_letters_cut_out_of_a_white_area_are_seen(block: tuple[int, int, int], size: tuple[int, int]) -> None:
    ground = "laid_on_grey" if max(block) == 0 else "laid_on_black"
    seen = set()
    for seed in range(4):
        pixels = _stencil(seed, block, size=size, num=4 if size[0] == 160 else 60)
        decoded = _decode(Image.fromarray(pixels))
        assert decoded.pixels is not None
        assert decoded.warnings == (ground,)
        below = decoded.pixels[pixels[..., 3] == 0].astype(int)
        assert (below <= 255 - 16).all()
        seen.add(decoded.pixels.tobytes())
    assert len(seen) == 4


def test_a_clear_gap_between_black_and_white_is_seen() -> None:
    seen = set()
    for width in range(10, 30):
        pixels = _stencil(0, (0, 0, 0), size=(160, 120), num=0)
        pixels[:, 71 : 71 + width, 3] = 0
        decoded = _decode(Image.fromarray(pixels))
        assert decoded.pixels is not None
        assert decoded.warnings == ("laid_on_grey",)
        seen.add(decoded.pixels.tobytes())
    assert len(seen) == 20


def test_a_photograph_in_a_ring_of_clear_pixels_has_no_letters_cut_out() -> None:
    """What is clear outside of all that is drawn is a margin, whatever its form."""
    pixels = np.full((120, 160, 4), 255, np.uint8)
    pixels[30:90, 40:120, :3] = 0
    rows, columns = np.indices((120, 160))
    pixels[abs(rows - 60) / 100 + abs(columns - 80) / 130 > 1, 3] = 0
    pixels[:3, :, 3] = pixels[-3:, :, 3] = 0
    assert _decode(Image.fromarray(pixels)).warnings == ()


@pytest.mark.parametrize(
    ("colour", "ground"),
    [((0, 0, 0), WHITE), ((255, 255, 255), BLACK), ((255, 255, 0), WHITE), ((250, 245, 250), BLACK)],
)
def test_the_ground_is_the_one_on_which_most_is_seen(colour: tuple[int, int, int], ground: int) -> None:
    some = np.zeros((20, 20, 4), np.uint8)
    some[5:8] = (*colour, 255)
    assert ground_of(some, num_pixels=400) == ground


def test_white_and_black_side_by_side_are_laid_on_grey() -> None:
    some = np.zeros((20, 20, 4), np.uint8)
    some[5:8], some[12:15] = (255, 255, 255, 255), (0, 0, 0, 255)
    assert ground_of(some, num_pixels=400) in GREYS


def test_where_nothing_is_drawn_there_is_none() -> None:
    assert ground_of(np.zeros((4, 4, 4), np.uint8), num_pixels=16) is None
