"""judge: the bounds, their order, and what is left alone."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from curation.describe.filters import JudgeConfig, judge, pixel_std
from curation.schema import DESCRIBED, REASONS, VERDICTS

GOOD = {"width": 100, "height": 80, "pixel_std": 30.0, "has_embedding": True, "reason": None}


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
            "has_embedding": bool(rng.integers(0, 4)),
        }
        for _ in range(500)
    ]
    config = JudgeConfig(max_side_px=50, max_aspect=1.7, min_pixel_std=2)

    def verdict(row: dict[str, float]) -> str | None:
        short, long = sorted((row["width"], row["height"]))
        tests = (short < 16, long > 50, long / short > 1.7, row["pixel_std"] < 2, not row["has_embedding"])
        return next((reason for reason, holds in zip(REASONS["judge"], tests, strict=True) if holds), None)

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
