"""BandSamples of many bands: every writing gives the same ones, and nothing is allocated for a promise."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from badset import read_index
from pictures import DATA, Tag, tiff

from curation.errors import ConfigError
from curation.pictures.band_view import BandView
from curation.pictures.decode import DecodeConfig, decode
from curation.pictures.samples import BandSamples, read_samples

MAX_PIXELS = 1_000_000
FOUR = np.random.default_rng(0).integers(0, 1 << 16, (40, 56, 4), np.uint16)


def written(values: np.ndarray, **how: Any) -> bytes:
    """A TIFF of bands, (h, w, bands)."""
    out = io.BytesIO()
    how = {"planarconfig": "contig", "photometric": "minisblack", **how}
    planes = np.moveaxis(values, 2, 0) if how["planarconfig"] == "separate" else values
    if values.shape[2] == 1:
        planes = values[..., 0]
        del how["planarconfig"]
    tifffile.imwrite(out, planes, **how)
    return out.getvalue()


def found(data: bytes, **caps: int) -> BandSamples:
    return read_samples(data, **{"max_pixels": MAX_PIXELS, **caps})


def tags_of(width: int, height: int, num_bands: int, *, num_bytes: int, **more: Tag) -> dict[int, Tag]:
    tags: dict[int, Tag] = {256: (4, [width]), 257: (4, [height]), 258: (3, [16] * num_bands), 259: (3, [1])}
    tags |= {262: (3, [1]), 273: (4, [DATA]), 277: (3, [num_bands]), 278: (4, [height])}
    return tags | {279: (4, [num_bytes])} | {int(name[1:]): tag for name, tag in more.items()}


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"planarconfig": "separate"},
        {"compression": "zlib", "predictor": True, "rowsperstrip": 7},
        {"compression": "lzw", "tile": (16, 32)},
        {"compression": "zstd", "planarconfig": "separate", "tile": (32, 16)},
        {"compression": "packbits"},
    ],
)
def test_every_writing_gives_the_same_samples(how: dict[str, Any]) -> None:
    read = found(written(FOUR, **how))
    assert (read.reason, read.size) == (None, (56, 40))
    assert read.values is not None
    assert read.values.dtype == np.uint16
    assert np.array_equal(read.values, FOUR)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint32, np.float32, np.float16])
@pytest.mark.parametrize("num_bands", [1, 2, 13])
def test_every_type_of_sample_is_kept(kind: type, num_bands: int) -> None:
    values = (100 * np.random.default_rng(1).standard_normal((5, 6, num_bands))).astype(kind)
    read = found(written(values)).values
    assert read is not None
    assert read.dtype == kind
    assert np.array_equal(read, values)


def test_it_is_turned_upright() -> None:
    """Orientation 6: the first row is the right-hand side."""
    values = np.arange(6, dtype=np.uint16).reshape(2, 3, 1)
    read = found(written(values, extratags=[(274, "H", 1, 6, True)]))
    assert read.size == (2, 3)
    assert read.values is not None
    assert read.values[..., 0].tolist() == [[3, 0], [4, 1], [5, 2]]


@pytest.mark.parametrize("how", [{}, {"compression": "zlib"}, {"planarconfig": "separate"}])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.99])
def test_a_file_that_ends_early_is_refused(how: dict[str, Any], share: float) -> None:
    data = written(FOUR, **how)
    read = found(data[: int(share * len(data))])
    assert read.values is None
    assert read.reason == ("corrupt" if share == 0.01 else "truncated")  # within the directory


def test_damage_is_refused() -> None:
    data = bytearray(written(FOUR, compression="zlib"))
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    assert found(bytes(data)).reason == "corrupt"


def test_what_is_no_measure_is_unsupported() -> None:
    rgb = np.zeros((16, 16, 3), np.uint8)
    for how in ({"photometric": "rgb", "compression": "jpeg"}, {"photometric": "cielab"}):
        assert found(written(rgb, **how)).reason == "unsupported_format", how
    assert found(written(rgb[..., :1], photometric="miniswhite")).reason == "unsupported_format"


def test_caps_hold_before_anything_is_allocated() -> None:
    """Pixels, and pixels x bands x bytes: a directory of 300 bytes may promise terabytes."""
    assert found(written(FOUR), max_pixels=56 * 40 - 1).reason == "too_many_pixels"
    assert found(written(FOUR), max_bytes=56 * 40 * 8).reason is None
    assert found(written(FOUR), max_bytes=56 * 40 * 8 - 1).reason == "too_many_pixels"
    for width, height, num_bands in ((30_000, 30_000, 4), (1 << 20, 1 << 20, 2), (900, 900, 4_000)):
        read = found(tiff(tags_of(width, height, num_bands, num_bytes=16), bytes(16)))
        assert read.values is None
        assert read.reason in ("too_many_pixels", "corrupt")
    many = tiff(tags_of(8, 8, 5_000, num_bytes=16), bytes(16))
    assert found(many).words == "5000 samples a pixel"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
def test_a_bomb_unpacks_no_further_than_its_picture(tmp_path: Path) -> None:
    """A strip of half a gigabyte of zeros, 500 kB packed, in a picture of 16 x 16 px."""
    pack = zlib.compressobj(9)
    bomb = b"".join(pack.compress(bytes(1 << 20)) for _ in range(512)) + pack.flush()
    (tmp_path / "bomb").write_bytes(
        tiff(tags_of(16, 16, 4, num_bytes=len(bomb), t259=(3, [8]), t279=(4, [len(bomb)])), bomb)
    )
    (tmp_path / "sound").write_bytes(written(FOUR, compression="zlib"))
    code = """if True:
        import sys
        from pathlib import Path
        from curation.pictures.samples import read_samples

        def peak() -> int:
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

        sound, bomb = (Path(path).read_bytes() for path in sys.argv[1:])
        read_samples(sound, max_pixels=1_000_000)
        before = peak()
        assert read_samples(bomb, max_pixels=1_000_000).values is None
        print(peak() - before)
    """
    command = [sys.executable, "-c", code, str(tmp_path / "sound"), str(tmp_path / "bomb")]
    assert int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) < 20_000_000


def test_random_damage_never_raises() -> None:
    rng = np.random.default_rng(3)
    for how in ({"compression": "lzw"}, {"tile": (16, 16), "compression": "zlib"}, {}):
        data = written(FOUR, **how)
        for _ in range(60):
            spoilt = bytearray(data)
            for at in rng.integers(0, 400, 3):
                spoilt[at] = rng.integers(256)
            read = found(bytes(spoilt))
            assert (read.values is None) == (read.reason is not None)


def test_the_bad_set_with_bands(shared_dir: Path) -> None:
    """No bad file comes to harm where bands are asked for; what is no TIFF is judged as ever."""
    plain, bands = DecodeConfig(), DecodeConfig(bands=BandView(channels=(1,)))
    for row in read_index(shared_dir / "badset"):
        data = (shared_dir / "badset" / row["file"]).read_bytes()
        one = decode(data, need_side_px=224, config=bands)
        assert (one.pixels is None) == (one.reason is not None)
        if one.format != "TIFF":
            assert one.reason == decode(data, need_side_px=224, config=plain).reason


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ConfigError, match=r"lvd\[bands\]"):
        found(written(FOUR))


def test_thumbnails_are_passed_over() -> None:
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as file:
        how: dict[str, Any] = {"planarconfig": "contig", "photometric": "minisblack"}
        file.write(FOUR[::8, ::8], subfiletype=1, **how)
        file.write(FOUR, **how)
    read = found(out.getvalue()).values
    assert read is not None
    assert np.array_equal(read, FOUR)
    assert struct.unpack_from("<H", out.getvalue(), 2) == (42,)
