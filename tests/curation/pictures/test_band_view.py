"""How many bands are looked at: levels by hand, by percentiles, and what the decoder makes of it."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image
from pydantic import ValidationError

from curation.pictures.band_view import BandView, lacking, view_of
from curation.pictures.decode import DecodeConfig, decode


def written(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, values, planarconfig="contig", photometric="minisblack")
    return out.getvalue()


def test_fixed_levels_by_hand() -> None:
    """Of 1000 to 3550 a level is ten samples; what lies outside has the level of the end."""
    samples = np.zeros((1, 4, 5), np.uint16)
    samples[0, :, 4] = [900, 1000, 2000, 65000]
    samples[0, :, 1] = [0, 51, 255, 300]
    config = BandView(channels=(5, 2, 5), levels=((1000, 3550), (0, 255), (0, 255)))
    seen = view_of(samples, config)
    assert seen[0].tolist() == [[0, 0, 255], [0, 51, 255], [100, 255, 255], [255, 255, 255]]
    grey = view_of(samples, BandView(channels=(2,), levels=((0, 510),)))
    assert grey[0].tolist() == [[0] * 3, [26] * 3, [128] * 3, [150] * 3]  # 25.5 and 127.5 go to even numbers


def test_percentiles_are_those_of_numpy_up_to_a_sample() -> None:
    shuffled = np.random.default_rng(0).permutation(6 * np.arange(10_000, dtype=np.uint16))
    samples = shuffled.reshape(100, 100, 1)
    seen = view_of(samples, BandView(channels=(1,), percentiles=(10, 90)))[..., 0]
    low, high = np.percentile(samples, [10, 90])
    expected = (samples[..., 0].clip(low, high) - low) * 255 / (high - low)
    assert np.abs(seen - expected).max() < 1
    assert (seen == 0).mean() == pytest.approx(0.1, abs=0.003)


def test_each_band_has_percentiles_of_its_own_and_a_flat_one_is_black() -> None:
    rng = np.random.default_rng(0)
    normals = [rng.normal(mean, spread, (64, 64)) for mean, spread in ((9, 1), (-1e6, 1e3), (7, 0))]
    samples = np.stack(normals, axis=2)
    seen = view_of(samples.astype(np.float32), BandView(channels=(1, 2, 3)))
    assert abs(seen[..., 0].mean() - seen[..., 1].mean()) < 5
    assert not seen[..., 2].any()


def test_rare_classes_are_seen_though_percentiles_miss_them() -> None:
    samples = np.zeros((100, 100, 1), np.uint16)
    samples[:1, :50] = 3
    assert set(np.unique(view_of(samples, BandView(channels=(1,))))) == {0, 255}


def test_what_is_no_number_is_black() -> None:
    samples = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20, 1)
    samples[3, 4:7, 0] = [np.nan, -np.inf, np.inf]
    seen = view_of(samples, BandView(channels=(1,), percentiles=(0, 100)))[..., 0]
    assert seen[3, 4:7].tolist() == [0, 0, 255]
    assert seen[-1, -1] == 255
    assert not view_of(np.full((4, 4, 1), np.nan, np.float32), BandView(channels=(1,))).any()


def test_large_pictures_are_made_in_bands_of_rows() -> None:
    samples = np.random.default_rng(0).integers(0, 4096, (1100, 1000, 2), np.uint16)
    config = BandView(channels=(2,), levels=((0, 4080),))
    expected = np.rint(samples[..., 1].clip(0, 4080) / 16).astype(np.uint8)
    assert np.array_equal(view_of(samples, config)[..., 0], expected)


def test_the_decoder_sees_bands_of_tiffs_and_leaves_the_rest_alone() -> None:
    values = np.random.default_rng(0).integers(0, 4000, (70, 90, 4), np.uint16)
    config = DecodeConfig(bands=BandView(channels=(4, 3, 2), levels=((0, 4080),) * 3))
    decoded = decode(written(values), need_side_px=64, config=config)
    assert (decoded.format, decoded.width, decoded.height, decoded.reason) == ("TIFF", 90, 70, None)
    assert np.array_equal(decoded.pixels, np.rint(values[..., 3:0:-1] / 16).astype(np.uint8))
    two = decode(written(values[..., :2]), need_side_px=64, config=config)
    assert (two.reason, two.warnings) == ("unsupported_format", ("TIFF: band 4 of 2",))
    assert lacking(4, BandView(channels=(4,))) is None
    png = io.BytesIO()
    Image.fromarray((values[..., :3] // 16).astype(np.uint8)).save(png, "PNG")
    one, other = (decode(png.getvalue(), need_side_px=64, config=c) for c in (config, DecodeConfig()))
    assert np.array_equal(one.pixels, other.pixels)


def test_what_is_off_is_no_part_of_an_identity() -> None:
    assert "bands" not in DecodeConfig().model_dump(mode="json")
    on = DecodeConfig(bands=BandView(channels=(1,)))
    assert DecodeConfig.model_validate(on.model_dump(mode="json")) == on


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"channels": (1, 2)}, "three for R, G and B, or one"),
        ({"channels": (0,)}, "greater than or equal to 1"),
        ({"channels": (1,), "levels": ((0, 1), (0, 1))}, "2 ranges for 1 channels"),
        ({"channels": (1,), "levels": ((5, 5),)}, "lowest < highest"),
        ({"channels": (1,), "percentiles": (98, 2)}, "lowest < highest"),
    ],
)
def test_what_cannot_be_meant(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        BandView.model_validate(fields)
