"""judge: the bounds, their order, and what is left alone."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from curation.describe.filters import JudgeConfig, filters, judge, measurements, pixel_std
from curation.schema import DESCRIBED, REASONS, SCORES, VERDICTS

GOOD = {
    "width": 100,
    "height": 80,
    "pixel_std": 30.0,
    "uniform_share": 0.4,
    "stroke_share": 0.1,
    "has_embedding": True,
    "reason": None,
}


def _described(*rows: dict[str, object]) -> pa.Table:
    fixed = {"sha256": b"\0" * 32, "num_bytes": 1, "format": "PNG", "phash": 0, "warnings": []}
    return pa.Table.from_pylist([fixed | GOOD | row for row in rows], DESCRIBED)


@pytest.mark.parametrize(
    ("row", "bounds", "reason"),
    [
        ({}, {}, None),
        ({"width": 16, "height": 16}, {}, None),  # on the bound is in
        ({"height": 15}, {}, "too_small"),
        ({"width": 160, "height": 16}, {}, None),
        ({"width": 161, "height": 16}, {}, "aspect"),
        ({"width": 16, "height": 161}, {}, "aspect"),
        ({"width": 161, "height": 16}, {"max_aspect": None}, None),
        ({"width": 101}, {"max_side_px": 100}, "too_large"),
        ({}, {"max_pixels": 8000}, None),
        ({}, {"max_pixels": 7999}, "too_large"),
        ({"width": 70000, "height": 70000}, {"max_pixels": 2**31}, "too_large"),  # no 32-bit overflow
        ({"pixel_std": 0.0}, {}, None),  # blanks are kept unless asked for
        ({"pixel_std": 4.9}, {"min_pixel_std": 5.0}, "low_information"),
        ({"pixel_std": None}, {"min_pixel_std": 5.0}, None),
        ({"uniform_share": 0.99}, {}, None),
        ({"uniform_share": 0.75}, {"max_uniform_share": 0.75}, None),
        ({"uniform_share": 0.98}, {"max_uniform_share": 0.98}, None),  # in fp32 the one is above the other
        ({"stroke_share": 0.9}, {"max_stroke_share": 0.9}, None),
        ({"pixel_std": 0.7}, {"min_pixel_std": 0.7}, None),
        ({"uniform_share": 0.76}, {"max_uniform_share": 0.75}, "near_uniform"),
        ({"stroke_share": 0.5}, {"max_stroke_share": 0.5}, None),
        ({"stroke_share": 0.625}, {"max_stroke_share": 0.5}, "text_only"),
        ({"has_embedding": False}, {}, "no_embedding"),
        ({"width": 1, "height": 65500, "has_embedding": False}, {"max_side_px": 100}, "too_small"),
        ({"width": None, "height": None, "has_embedding": False, "reason": "corrupt"}, {}, None),
        ({"height": 3, "has_embedding": False, "reason": "too_many_pixels"}, {}, None),
    ],
)
def test_one_row(row: dict[str, object], bounds: dict[str, float], reason: str | None) -> None:
    verdicts = judge(_described({}, row), JudgeConfig(**bounds))
    assert verdicts.schema == VERDICTS
    assert verdicts["reason"].to_pylist()[1] == reason
    assert reason is None or reason in REASONS["judge"]


def _scores(*rows: dict[str, float]) -> pa.Table:
    return pa.Table.from_pylist([dict.fromkeys(SCORES.names) | row for row in rows], SCORES)


@pytest.mark.parametrize(
    ("scores", "bounds", "reason"),
    [
        ({"nsfw": 0.9}, {}, None),
        ({"nsfw": 0.5}, {"max_nsfw": 0.5}, None),  # on the bound is in
        ({"nsfw": 0.75}, {"max_nsfw": 0.5}, "nsfw"),
        ({"aesthetic": 4.0}, {"min_aesthetic": 4.5}, "low_aesthetic"),
        ({"watermark": 0.75, "aesthetic": 4.0}, {"max_watermark": 0.5}, "watermark"),
        ({"watermark": 0.75, "nsfw": 0.75}, {"max_watermark": 0.5, "max_nsfw": 0.5}, "nsfw"),
        ({"nsfw": 0.7}, {"max_nsfw": 0.7}, None),
        ({"aesthetic": 4.9}, {"min_aesthetic": 4.9}, None),
        ({"nsfw": np.nan}, {"max_nsfw": 0.5}, "no_score"),
        ({"aesthetic": np.inf}, {"min_aesthetic": 4.5}, "no_score"),
        ({"nsfw": 0.1}, {"max_nsfw": 0.5, "max_watermark": 0.5}, "no_score"),  # unknown is not harmless
    ],
)
def test_scores(scores: dict[str, float], bounds: dict[str, float], reason: str | None) -> None:
    verdicts = judge(_described({}, {"reason": "corrupt"}), JudgeConfig(**bounds), scores=_scores(scores, {}))
    assert verdicts["reason"].to_pylist() == [reason, None]


def test_every_filter_tells_its_reason_and_its_field() -> None:
    assert {one.field for one in filters(JudgeConfig())} == {"min_side_px", "max_aspect", "min_pixel_std"}
    config = JudgeConfig(**dict.fromkeys(JudgeConfig.model_fields, 1))
    assert {one.field for one in filters(config)} == set(JudgeConfig.model_fields)
    for one in filters(config):
        assert one.reason in REASONS["judge"]
        assert getattr(config, one.field) == one.limit
        assert one.measure in measurements(_described({}), None).column_names
    order = [reason for reason in REASONS["judge"] if reason in {one.reason for one in filters(config)}]
    assert list(dict.fromkeys(one.reason for one in filters(config))) == order


def test_chunks_and_no_rows() -> None:
    table = pa.concat_tables([_described({"height": 3}), _described({}), _described()])
    assert judge(table, JudgeConfig())["reason"].to_pylist() == ["too_small", None]
    assert judge(_described(), JudgeConfig()).num_rows == 0


def test_same_as_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {
            "width": int(rng.integers(1, 60)),
            "height": int(rng.integers(1, 60)),
            "pixel_std": float(rng.integers(0, 9)),
            "uniform_share": rng.integers(0, 9) / 8,
            "stroke_share": rng.integers(0, 9) / 8,
            "has_embedding": bool(rng.integers(0, 4)),
        }
        for _ in range(500)
    ]
    config = JudgeConfig(
        max_side_px=50, max_aspect=1.7, min_pixel_std=2, max_uniform_share=0.75, max_stroke_share=0.5
    )

    def verdict(row: dict[str, float]) -> str | None:
        short, long = sorted((row["width"], row["height"]))
        tests = {
            "too_small": short < 16,
            "too_large": long > 50,
            "aspect": long / short > 1.7,
            "low_information": row["pixel_std"] < 2,
            "near_uniform": row["uniform_share"] > 0.75,
            "text_only": row["stroke_share"] > 0.5,
            "no_embedding": not row["has_embedding"],
        }
        return next((reason for reason in REASONS["judge"] if tests.get(reason)), None)

    assert judge(_described(*rows), config)["reason"].to_pylist() == [verdict(row) for row in rows]


def test_pixel_std_equals_numpy() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (9, 32, 32), np.uint8)
    grey[0] = 7
    np.testing.assert_allclose(pixel_std(grey), grey.reshape(9, -1).std(axis=1), rtol=1e-6)
    assert pixel_std(grey)[0] == 0
    assert np.array_equal(pixel_std(grey[3:4]), pixel_std(grey)[3:4])


def test_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError, match="min_side"):
        JudgeConfig(min_side=3)  # type: ignore[call-arg]
