"""Which described pictures are usable: all thresholds that a user may want to move, on saved measurements."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, UInt8
from pydantic import BaseModel, ConfigDict, Field

from curation.schema import VERDICTS


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
    return (np.sqrt(scatter.astype(np.float64)) / num_pixels).astype(np.float32)


def judge(described: pa.Table, config: JudgeConfig) -> pa.Table:
    """Judge every described row.

    Where several reasons hold the first counts, in the order too_small, too_large, aspect, low_information,
    no_embedding.

    Args:
        described: rows of schema.DESCRIBED.
        config: the bounds.

    Returns:
        As many rows of schema.VERDICTS, in the same order: null where the picture is usable, and where
        describe has refused it already.
    """
    shorter = pc.min_element_wise(described["width"], described["height"])
    longer = pc.max_element_wise(described["width"], described["height"])
    num_pixels = pc.multiply(shorter.cast(pa.int64()), longer.cast(pa.int64()))
    tests = {
        "too_small": pc.less(shorter, config.min_side_px),
        "too_large": pc.or_kleene(_above(longer, config.max_side_px), _above(num_pixels, config.max_pixels)),
        "aspect": _above(pc.divide(longer.cast(pa.float64()), shorter.cast(pa.float64())), config.max_aspect),
        "low_information": pc.less(described["pixel_std"], config.min_pixel_std),
        "no_embedding": pc.invert(described["has_embedding"]),
    }
    judged = pc.is_null(described["reason"])
    holds = [pc.fill_null(pc.and_(judged, test), False) for test in tests.values()]
    cases = pc.make_struct(*holds, field_names=list(tests))
    reason = pc.case_when(cases, *(pa.scalar(name) for name in tests)) if len(described) else []
    return pa.table({"reason": pa.chunked_array([], pa.string()) if not len(described) else reason}, VERDICTS)


def _above(values: pa.ChunkedArray, bound: float | int | None) -> pa.ChunkedArray:
    return pc.greater(values, pa.scalar(bound, pa.float64()) if bound is not None else None)
