"""Which described pictures are usable: all thresholds that a user may want to move, on saved measurements."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, UInt8
from pydantic import BaseModel, ConfigDict, Field

from curation.schema import SCORES, VERDICTS


class JudgeConfig(BaseModel):
    """Bounds of a usable picture; a picture on a bound is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_side_px: int = Field(16, ge=1, description="shortest side allowed, pixels")
    max_side_px: int | None = Field(None, ge=1, description="longest side allowed, pixels; none where null")
    max_pixels: int | None = Field(None, ge=1, description="largest width x height allowed; none where null")
    max_aspect: float | None = Field(
        10.0, ge=1, description="largest longer / shorter side allowed; none where null"
    )
    min_pixel_std: float = Field(
        0.0,
        ge=0,
        le=127.5,
        description="smallest standard deviation of the grey levels, 0-255; 0 keeps blank pictures",
    )
    max_uniform_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="largest share of the pixels within 8 grey levels of the commonest; none where null",
    )
    max_stroke_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="of what stands on a plain ground, the largest share that may be thin strokes, as text "
        "is; none where null",
    )
    max_nsfw: float | None = Field(
        None, description="largest score of describe.heads.nsfw allowed; none where null"
    )
    min_aesthetic: float | None = Field(
        None, description="smallest score of describe.heads.aesthetic allowed; none where null"
    )
    max_watermark: float | None = Field(
        None, description="largest score of describe.heads.watermark allowed; none where null"
    )


@dataclass(frozen=True)
class Filter:
    """One threshold on one measurement: a predicate, and the reason that it gives."""

    reason: str  # one of REASONS["judge"]
    measure: str  # column of `measurements`
    field: str  # of JudgeConfig
    limit: float | int
    refuses: Literal["below", "above"]

    def __call__(self, measured: pa.Table) -> pa.ChunkedArray:
        """Where it refuses: booleans, null where the measurement is."""
        column = measured[self.measure]
        compare = pc.less if self.refuses == "below" else pc.greater
        # Out of a buffer: what pyarrow makes of Python's own numbers imports pandas.
        limit = pa.py_buffer(np.array(self.limit_for(column.type)))
        return compare(column, pa.Array.from_buffers(pa.float64(), 1, [None, limit])[0])

    @property
    def refuses_unknown(self) -> bool:
        """Unknown is not harmless: what could not be scored does not pass a threshold on the score."""
        return self.measure in SCORES.names

    def limit_for(self, measured: pa.DataType) -> float:
        """The limit, rounded as a measurement of this type was: 0.98 in fp32 is more than 0.98."""
        return float(np.float32(self.limit) if pa.types.is_float32(measured) else self.limit)


def filters(config: JudgeConfig) -> tuple[Filter, ...]:
    """Every filter that is on, in the order in which their reasons count."""
    c = config
    every: tuple[tuple[str, str, str, float | int | None, Literal["below", "above"]], ...] = (
        ("too_small", "shorter_px", "min_side_px", c.min_side_px, "below"),
        ("too_large", "longer_px", "max_side_px", c.max_side_px, "above"),
        ("too_large", "num_pixels", "max_pixels", c.max_pixels, "above"),
        ("aspect", "aspect", "max_aspect", c.max_aspect, "above"),
        ("low_information", "pixel_std", "min_pixel_std", c.min_pixel_std, "below"),
        ("near_uniform", "uniform_share", "max_uniform_share", c.max_uniform_share, "above"),
        ("text_only", "stroke_share", "max_stroke_share", c.max_stroke_share, "above"),
        ("nsfw", "nsfw", "max_nsfw", c.max_nsfw, "above"),
        ("low_aesthetic", "aesthetic", "min_aesthetic", c.min_aesthetic, "below"),
        ("watermark", "watermark", "max_watermark", c.max_watermark, "above"),
    )
    return tuple(
        Filter(reason, measure, field, limit, refuses)
        for reason, measure, field, limit, refuses in every
        if limit is not None
    )


def pixel_std(grey: UInt8[np.ndarray, "n 32 32"]) -> Float32[np.ndarray, " n"]:
    """Standard deviation of the grey levels of pictures, 0 for a blank one.

    Args:
        grey: uint8, (n, 32, 32), from `grey32`.

    Returns:
        float32, (n,), in grey levels 0..127.5. From integer sums: exact, and the same in any batch.
    """
    levels = grey.reshape(len(grey), 1024).astype(np.int64)
    num_pixels = levels.shape[1]
    scatter = num_pixels * (levels * levels).sum(axis=1) - levels.sum(axis=1) ** 2
    spread: np.ndarray = np.sqrt(scatter.astype(np.float64)) / num_pixels
    return spread.astype(np.float32)


def measurements(described: pa.Table, scores: pa.Table | None) -> pa.Table:
    """What the filters look at, one column each.

    Null where describe has refused the picture, and where a score is no number.

    Args:
        described: rows of schema.DESCRIBED.
        scores: as many rows of schema.SCORES; None where no head is on.
    """
    width, height = described["width"].cast(pa.int64()), described["height"].cast(pa.int64())
    shorter, longer = pc.min_element_wise(width, height), pc.max_element_wise(width, height)
    columns = {
        "shorter_px": shorter,
        "longer_px": longer,
        "num_pixels": pc.multiply(shorter, longer),
        "aspect": pc.divide(longer.cast(pa.float64()), shorter.cast(pa.float64())),
    }
    columns |= {name: described[name] for name in ("pixel_std", "uniform_share", "stroke_share")}
    for field in SCORES:
        column = scores[field.name] if scores else pa.nulls(len(described), field.type)
        # NaN is neither above nor below a limit, and would pass each of them.
        columns[field.name] = _where(pc.is_finite(column), column)
    decoded = pc.is_null(described["reason"])
    seen = [_where(decoded, column) for column in columns.values()]
    return pa.Table.from_arrays(seen, names=list(columns))  # pa.table imports pandas


def _where(
    mask: pa.Array | pa.ChunkedArray, column: pa.Array | pa.ChunkedArray
) -> pa.Array | pa.ChunkedArray:
    return pc.if_else(mask, column, pa.nulls(1, column.type)[0])  # None, or a scalar of it, imports pandas


def judge(described: pa.Table, config: JudgeConfig, *, scores: pa.Table | None = None) -> pa.Table:
    """Judge every described row.

    Where several reasons hold the first counts, in the order of `filters`, then no_embedding and no_score.

    Args:
        described: rows of schema.DESCRIBED.
        config: the bounds.
        scores: as many rows of schema.SCORES; None where no head is on.

    Returns:
        As many rows of schema.VERDICTS, in the same order: null where the picture is usable, and where
        describe has refused it already.
    """
    if not len(described):
        return VERDICTS.empty_table()
    measured = measurements(described, scores)
    used = filters(config)
    tests = [(one.reason, one(measured)) for one in used]
    tests.append(("no_embedding", pc.invert(described["has_embedding"])))
    tests += [("no_score", pc.is_null(measured[one.measure])) for one in used if one.refuses_unknown]
    judged = pc.is_null(described["reason"])
    holds = [pc.fill_null(pc.and_(judged, test), False) for _, test in tests]
    cases = pc.make_struct(*holds, field_names=[str(i) for i in range(len(tests))])
    return pa.table({"reason": pc.case_when(cases, *(pa.scalar(reason) for reason, _ in tests))}, VERDICTS)
