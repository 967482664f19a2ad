"""levels: samples of more than 8 bits are taken by the range that they use; no picture goes black or flat."""

import io

import numpy as np
import pytest
from pictures import DATA, Tag, png_16, tiff
from PIL import Image

from curation.pictures.bands import BAND_PX
from curation.pictures.decode import DecodeConfig, Decoded, decode
from curation.pictures.levels import float_scaling_of, scaling_of


def _decode(data: bytes) -> Decoded:
    return decode(data, need_side_px=10_000, config=DecodeConfig())


def _encode(samples: np.ndarray, file_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(samples).save(buffer, file_format)
    return buffer.getvalue()


def _scene(seed: int = 0, *, most: int = 255) -> np.ndarray:
    """Rectangles of some grey levels, all of 0..most used."""
    rng = np.random.default_rng(seed)
    scene = np.full((120, 160), most // 3)
    for _ in range(8):
        x, y = rng.integers(0, 130), rng.integers(0, 90)
        scene[y : y + 30, x : x + 30] = rng.integers(0, most + 1)
    scene[:10, :10], scene[-10:, -10:] = most, 0
    return scene


def _tiff(
    samples: np.ndarray, *, order: str = "<", sample_format: int = 1, more: dict[int, Tag] | None = None
) -> bytes:
    height, width = samples.shape[:2]
    bands, bits = samples.size // (width * height), 8 * samples.dtype.itemsize
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    tags: dict[int, Tag] = {256: (4, [width]), 257: (4, [height]), 258: (3, [bits] * bands), 259: (3, [1])}
    tags |= {262: (3, [1 if bands == 1 else 2]), 273: (4, [DATA]), 277: (3, [bands]), 278: (4, [height])}
    tags |= {279: (4, [len(data)]), 339: (3, [sample_format] * bands)}
    tags |= more or {}
    return tiff(tags if bands != 4 else tags | {338: (3, [2])}, data, order=order)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_eight_bits_in_a_container_of_sixteen_stay_what_they_are(file_format: str) -> None:
    for seed in range(5):
        scene = _scene(seed)
        decoded = _decode(_encode(scene.astype(np.uint16), file_format))
        assert decoded.pixels is not None
        assert np.array_equal(decoded.pixels[..., 0], scene)
        assert decoded.pixels.std() > 20
        assert decoded.warnings == ("levels_from_8_bits",)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_cameras_of_fewer_bits(bits: int, order: str) -> None:
    scene = _scene(most=(1 << bits) - 1)
    decoded = _decode(_tiff(scene.astype(np.uint16), order=order))
    assert decoded.pixels is not None
    assert np.array_equal(decoded.pixels[..., 0], scene >> (bits - 8))
    assert decoded.warnings == ((f"levels_from_{bits}_bits",) if bits < 16 else ())


@pytest.mark.parametrize("bits", [8, 12, 16, 31, 32])
def test_integers_of_32_bits(bits: int) -> None:
    scene = _scene(most=(1 << bits) - 1)
    decoded = _decode(_tiff(scene.astype(np.uint32)))
    assert decoded.pixels is not None
    assert np.array_equal(decoded.pixels[..., 0], scene >> (bits - 8))
    assert decoded.warnings == ((f"levels_from_{bits}_bits",) if bits < 32 else ())


@pytest.mark.parametrize("kind", [np.int16, np.int32])
@pytest.mark.parametrize("order", ["<", ">"])
def test_signed_integers(kind: type, order: str) -> None:
    """Tomography: -1,024 is air."""
    scene = _scene(most=4095) - 1024
    decoded = _decode(_tiff(scene.astype(kind), order=order, sample_format=2))
    assert decoded.pixels is not None
    assert decoded.warnings == ("levels_stretched",)
    assert np.abs(decoded.pixels[..., 0] - (scene + 1024) / 4095 * 255).max() <= 0.5


@pytest.mark.parametrize("bands", [2, 3, 4])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_colour_of_sixteen_bits(bands: int, bits: int) -> None:
    scenes = [_scene(seed, most=(1 << bits) - 1) for seed in range(bands)]
    samples = np.dstack(scenes).astype(np.uint16)
    if bands in (2, 4):  # opaque
        samples[..., -1] = (1 << bits) - 1
    for data in (png_16(samples), *([_tiff(samples, order=order) for order in "<>"] if bands > 2 else [])):
        decoded = _decode(data)
        assert decoded.pixels is not None
        colours = samples[..., :3] if bands > 2 else samples[..., [0, 0, 0]]
        assert np.array_equal(decoded.pixels, colours >> (bits - 8))
        # Pillow's high byte is enough from 13 bits on.
        assert decoded.warnings == ((f"levels_from_{bits}_bits",) if bits < 16 else ())


def test_white_strokes_of_sixteen_bits_on_a_clear_ground() -> None:
    drawn = _scene() > 100
    for full in (255, 4095, 65535):
        grey = np.full(drawn.shape, full)
        for samples in (np.dstack([grey, drawn * full]), np.dstack([grey, grey, grey, drawn * full])):
            decoded = _decode(png_16(samples))
            assert decoded.pixels is not None
            assert "laid_on_black" in decoded.warnings
            assert np.array_equal(decoded.pixels[..., 0] > 128, drawn)


@pytest.mark.parametrize("full", [255, 4095, 65_535])
@pytest.mark.parametrize("bands", [1, 3])
def test_a_colour_of_sixteen_bits_that_stands_for_clear(full: int, bands: int) -> None:
    """All 16 bits tell it from a colour that has the same high byte, or the same low one."""
    key = full * 2 // 3
    samples = np.where(_scene() > 100, 0, key)
    samples[0, :3] = key ^ 1, key ^ (2 if full == 255 else 256), full
    decoded = _decode(png_16(np.repeat(samples[..., None], bands, axis=2), clear=[key] * bands))
    assert decoded.pixels is not None
    expected = np.where(samples == key, 255, samples >> (full.bit_length() - 8))
    assert np.array_equal(decoded.pixels, np.repeat(expected[..., None], 3, axis=2))
    assert (samples == key).any()
    assert decoded.warnings == (() if full == 65_535 else (f"levels_from_{full.bit_length()}_bits",))


def test_a_palette_of_eight_bits_in_a_tiff() -> None:
    """Its colours have 16 bits each, of which some programs fill in the low eight."""
    indices = (np.indices((20, 30)).sum(axis=0) % 256).astype(np.uint8)
    colours = np.zeros((3, 256), int)
    colours[:] = np.arange(256)
    tags: dict[int, Tag] = {256: (4, [30]), 257: (4, [20]), 258: (3, [8]), 259: (3, [1]), 262: (3, [3])}
    tags |= {273: (4, [DATA]), 277: (3, [1]), 278: (4, [20]), 279: (4, [600])}
    for scale in (1, 257):
        decoded = _decode(tiff(tags | {320: (3, (colours * scale).reshape(-1))}, indices.tobytes()))
        assert decoded.pixels is not None
        assert np.array_equal(decoded.pixels[..., 1], indices)
        assert decoded.warnings == (("levels_from_8_bits",) if scale == 1 else ())


def test_a_narrow_range_is_stretched() -> None:
    """A thermal camera: 200 steps around 30,000, which share one high byte."""
    scene = 30_000 + _scene(most=199)
    decoded = _decode(_encode(scene.astype(np.uint16), "PNG"))
    assert decoded.pixels is not None
    assert decoded.warnings == ("levels_stretched",)
    assert decoded.pixels.min() == 0
    assert decoded.pixels.max() == 255
    # So are floats that all lie about a hundredth of their range apart.
    values = 0.5 + _scene() / 25_500
    decoded = _decode(_encode(values.astype(np.float32), "TIFF"))
    assert decoded.pixels is not None
    assert decoded.warnings == ("levels_stretched",)
    assert decoded.pixels.std() > 20


def test_a_hot_pixel_does_not_hide_the_rest() -> None:
    scene = _scene()
    scene[50, 60] = 65535
    decoded = _decode(_encode(scene.astype(np.uint16), "PNG"))
    assert decoded.pixels is not None
    assert np.array_equal(decoded.pixels[..., 0], np.minimum(scene, 255))


def _with_bar(scene: np.ndarray, num: int, value: int) -> np.ndarray:
    """A scale bar burnt in, `num` samples in rows of 60."""
    marked = scene.copy()
    marked[100 : 100 + num // 60, 20:80] = value
    return marked


@pytest.mark.parametrize("num", [60, 240, 900])
@pytest.mark.parametrize("most", [20, 200, 1000, 4095])
def test_a_bar_burnt_in_does_not_hide_a_dark_scene(most: int, num: int) -> None:
    """A microscope's scale bar at the end of the 16 bits, in grey and in colour."""
    seen = set()
    for seed in range(4):
        scene = _scene(seed, most=most)
        samples = _with_bar(scene, num, 65_535).astype(np.uint16)
        for data in (_encode(samples, "PNG"), png_16(np.dstack([samples] * 3))):
            decoded = _decode(data)
            assert decoded.pixels is not None
            assert decoded.warnings[-1] == "levels_clipped"
            assert (decoded.pixels[samples == 65_535] == 255).all()
            levels = decoded.pixels[samples != 65_535].astype(int)
            assert levels.std() > 20
            seen.add(decoded.pixels.tobytes())
    assert len(seen) == 4


def test_letters_with_soft_edges_do_not_hide_a_dark_scene() -> None:
    samples = _with_bar(_scene(most=1000), 300, 65_535)
    samples[105:107, 20:80] = [[20_000], [50_000]]
    decoded = _decode(_encode(samples.astype(np.uint16), "TIFF"))
    assert decoded.pixels is not None
    assert decoded.warnings == ("levels_from_10_bits", "levels_clipped")
    assert decoded.pixels[:100].std() > 20


@pytest.mark.parametrize("value", [0, 65_535])
def test_marks_do_not_hide_a_narrow_range(value: int) -> None:
    samples = _with_bar(30_000 + _scene(most=199), 120, value).astype(np.uint16)
    decoded = _decode(_encode(samples, "PNG"))
    assert decoded.pixels is not None
    assert decoded.warnings == ("levels_stretched", "levels_clipped")
    assert decoded.pixels[:100].std() > 20


def test_a_value_for_no_data_does_not_hide_heights_or_temperatures() -> None:
    heights = _with_bar(_scene(most=900), 120, -32_768)
    decoded = _decode(_tiff(heights.astype(np.int16), sample_format=2))
    assert decoded.pixels is not None
    assert decoded.warnings == ("levels_stretched", "levels_clipped")
    assert decoded.pixels[:100].std() > 20
    values = np.where(_with_bar(_scene(most=900), 120, -1) < 0, 255, _scene(most=900) / 1000)
    decoded = _decode(_encode(values.astype(np.float32), "TIFF"))
    assert decoded.pixels is not None
    assert decoded.warnings == ("levels_stretched", "levels_clipped")
    assert decoded.pixels[:100].std() > 20


NO_DATA = (  # type, value, greatest of the scene, divided by
    (np.int16, -32_768, 800, 1),
    (np.int16, -32_768, 8000, 1),
    (np.int16, -9999, 3000, 1),
    (np.int32, -(2**31), 3000, 1),
    (np.uint16, 65_535, 20, 1),
    (np.uint16, 65_535, 300, 1),
    (np.uint16, 65_535, 8000, 1),
    (np.uint32, 2**32 - 1, 8000, 1),
    (np.float32, 255, 1000, 1000),
    (np.float32, 100, 1000, 50),
)


@pytest.mark.parametrize("share", [0.02, 0.12, 0.375, 0.5, 0.95])
@pytest.mark.parametrize(("kind", "value", "most", "by"), NO_DATA)
def test_a_value_for_no_data_hides_nothing_at_any_share(
    kind: type, value: int, most: int, by: int, share: float
) -> None:
    seen, sample_format = set(), {"u": 1, "i": 2, "f": 3}[np.dtype(kind).kind]
    for seed in range(4):
        scene, is_empty = _scene(seed, most=most), np.zeros((120, 160), bool)
        scene[:, -8:] = np.linspace(0, most, 120).astype(int)[:, None]  # what is left at the largest share
        is_empty[:, : int(share * 160)] = True
        decoded = _decode(
            _tiff(np.where(is_empty, value, scene / by).astype(kind), sample_format=sample_format)
        )
        assert decoded.pixels is not None
        assert decoded.warnings[-1] == "levels_clipped"
        levels = decoded.pixels[..., 0].astype(int)
        assert (levels[is_empty] == (0 if value < 0 else 255)).all()
        assert np.ptp(levels[~is_empty]) >= 120
        order = np.argsort(scene[~is_empty], kind="stable")
        assert (np.diff(levels[~is_empty][order]) >= 0).all()
        seen.add(decoded.pixels.tobytes())
    assert len(seen) == 4 or share > 0.9


@pytest.mark.parametrize("share", [0.12, 0.5])
@pytest.mark.parametrize("value", [0, 65_535])
def test_no_data_in_colour_of_sixteen_bits_and_beside_a_narrow_range(value: int, share: float) -> None:
    scene = np.dstack([_scene(seed, most=300) for seed in range(3)]) + (30_000 if value == 0 else 0)
    scene[:, : int(share * 160)] = value
    for data in (png_16(scene), png_16(scene[..., :1]), _tiff(scene.astype(np.uint16), order=">")):
        decoded = _decode(data)
        assert decoded.pixels is not None
        assert decoded.warnings == ("levels_stretched", "levels_clipped")
        levels = decoded.pixels[:, int(share * 160) :].astype(int)
        assert np.ptp(levels) >= 220
        assert (decoded.pixels[:, : int(share * 160)] == (255 if value else 0)).all()
        assert (
            levels.min() > 0 if value == 0 else levels.max() < 255
        )  # what it is not said by its level alone


def test_no_data_at_both_ends() -> None:
    samples = _scene(most=900)
    samples[:30], samples[-40:] = -32_767, 32_766
    samples[3, 3:8], samples[-3, 3:8] = -32_768, 32_767  # and hot pixels beyond
    decoded = _decode(_tiff(samples.astype(np.int16), sample_format=2))
    assert decoded.pixels is not None
    assert np.ptp(decoded.pixels[30:-40].astype(int)) > 180
    assert (decoded.pixels[:30] == 0).all()
    assert (decoded.pixels[-40:] == 255).all()


def test_skies_frames_and_pages_are_not_no_data() -> None:
    """A sky that is clipped next to bright clouds, a page of few exact greys, a dark frame."""
    rng = np.random.default_rng(0)
    sky = np.clip(rng.normal(50_000, 15_000, (120, 160)), 0, 65_535).astype(np.uint16)
    sky[:60] = 65_535
    frame = _scene(most=65_535).astype(np.uint16)
    frame[:40] = 0
    for samples in (sky, frame):
        decoded = _decode(_encode(samples, "PNG"))
        assert decoded.pixels is not None
        assert np.array_equal(decoded.pixels[..., 0], samples >> 8)
        assert decoded.warnings == ()
    page = np.full((120, 160), 65_535)
    page[20:40], page[50:60] = 2047, 0
    decoded = _decode(_encode(page.astype(np.uint16), "PNG"))
    assert decoded.pixels is not None
    assert len({int(level) // 16 for level in decoded.pixels[[30, 55, 90], 5, 0]}) == 3


def test_pages_lights_and_cells_of_sixteen_bits_keep_their_levels() -> None:
    """What is bright in the dark, or dark on paper, is no mark where it has levels of its own."""
    rng = np.random.default_rng(0)
    paper = np.clip(rng.normal(60_000, 300, (120, 160)), 0, 65_535).astype(np.uint16)
    plain = np.full((120, 160), 65_535, np.uint16)
    night = (65_535 * rng.random((120, 160)) ** 6).astype(np.uint16)
    cells = np.clip(rng.normal(100, 10, (120, 160)), 0, None).astype(np.uint16)
    cells[50:60, 50:110] = rng.integers(2_000, 30_000, (10, 60))
    for pixels in (paper, plain):
        pixels[20:100:9, 20:140:3] = 0
    for samples in (paper, plain, 65_535 - plain, night):
        decoded = _decode(_encode(samples, "PNG"))
        assert decoded.pixels is not None
        assert np.array_equal(decoded.pixels[..., 0], samples >> 8)
        assert decoded.warnings == ()
    decoded = _decode(_encode(cells, "PNG"))
    assert decoded.pixels is not None
    assert np.array_equal(decoded.pixels[..., 0], cells >> 7)


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.uint32, np.float32])
@pytest.mark.parametrize("most", [1, 4, 20, 31])
def test_classes_and_counts_are_stretched(kind: type, most: int) -> None:
    """Binary and label masks, of which few samples may be of another class."""
    rare = np.zeros((120, 160), int)
    rare[5, 5:15] = most
    for samples in (_scene(most=most), rare, most - rare):
        formats = {np.int16: 2, np.float32: 3}
        decoded = _decode(_tiff(samples.astype(kind), sample_format=formats.get(kind, 1)))
        assert decoded.pixels is not None
        assert np.array_equal(decoded.pixels[..., 0], np.rint(samples * (255 / most)))
        as_usual = kind is np.float32 and most == 1
        assert decoded.warnings == (() if as_usual else ("levels_stretched",))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("most", [255, 4095, 65_535])
def test_grey_of_which_zero_is_white_is_no_negative(most: int, order: str) -> None:
    """As its twin of which zero is black, and of eight bits, which Pillow turns about itself."""
    white_is_zero: dict[int, Tag] = {262: (3, [0])}
    scene = _scene(most=most)
    eight = (scene * 255 // most).astype(np.uint8)
    expected = _decode(_tiff(eight, order=order, more=white_is_zero))
    assert expected.pixels is not None
    assert np.array_equal(expected.pixels[..., 0], 255 - eight)
    kinds = [(scene.astype(np.uint16), 1), ((scene / most).astype(np.float32), 3)]
    for samples, sample_format in kinds[order == ">" :]:  # Pillow refuses 16 bits of the other order
        plain = _decode(_tiff(samples, order=order, sample_format=sample_format))
        turned = _decode(_tiff(samples, order=order, sample_format=sample_format, more=white_is_zero))
        assert plain.pixels is not None
        assert turned.pixels is not None
        assert np.array_equal(turned.pixels, 255 - plain.pixels)
        assert np.abs(turned.pixels.astype(int) - expected.pixels).max() <= 1
        assert turned.warnings == plain.warnings


def _levels(samples: np.ndarray) -> np.ndarray:
    scaling = scaling_of(samples, least=int(samples.min()), most=int(samples.max()))
    return scaling(samples)


@pytest.mark.parametrize("value", [0, 7, 255, 256, 30_000, 65_535])
def test_a_flat_picture_stays_flat(value: int) -> None:
    levels = _levels(np.full((9, 9), value, np.uint16))
    assert (levels == levels[0, 0]).all()
    noisy = (30_000 + np.indices((9, 9)).sum(axis=0)).astype(np.uint16)  # 17 steps of 65,536
    assert np.ptp(_levels(noisy).astype(int)) <= 1


def test_floats_keep_their_ranges() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32)
    for scale in (1, 255):
        scaling = float_scaling_of(ramp * np.float32(scale), least=0.0, most=float(scale))
        assert scaling is not None
        assert np.array_equal(scaling(ramp * np.float32(scale)), np.arange(256))
        assert scaling.said == ()
    assert float_scaling_of(ramp * 300, least=0.0, most=300.0) is None
    assert float_scaling_of(ramp - 1, least=-1.0, most=0.0) is None


@pytest.mark.parametrize("most", [4095, 65_535])
def test_large_pictures_are_made_in_bands(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pixels as in one go: grey, colour, and with a clear ground."""
    samples = np.dstack([_scene(seed, most=most) for seed in range(4)]).astype(np.uint16)
    files = [
        _encode(samples[..., 0], "PNG"),
        png_16(samples[..., :3]),
        png_16(samples),
        png_16(samples[..., :2]),
    ]
    files.append(_tiff(samples[..., 1].astype(np.int32) - 2000, sample_format=2))
    whole = [_decode(data) for data in files]
    assert samples[..., 0].size < BAND_PX
    monkeypatch.setattr("curation.pictures.bands.BAND_PX", 1000)
    for data, expected in zip(files, whole, strict=True):
        decoded = _decode(data)
        assert decoded.pixels is not None
        assert np.array_equal(decoded.pixels, expected.pixels)
        assert decoded.warnings == expected.warnings


def test_a_value_that_is_no_number_is_found_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.pictures.bands.GRID_PX", 16)
    for bad in (np.nan, np.inf, -1.0, 256.0):
        values = np.full((20, 20), 0.5, np.float32)
        values[13, 17] = bad
        assert _decode(_encode(values, "TIFF")).reason == "unsupported_format"
