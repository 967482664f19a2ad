"""A picture of many bands as people see one: three of them as red, green and blue, or one as grey."""

from typing import Annotated

import numpy as np
from jaxtyping import Shaped, UInt8
from pydantic import BaseModel, Field, model_validator

from curation.pictures.bands import Box, grid, in_bands
from curation.pictures.levels import Scaling
from curation.pictures.samples import MAX_BYTES

Band = Annotated[int, Field(ge=1)]
Range = tuple[float, float]


class BandView(BaseModel, frozen=True, extra="forbid"):
    """How a TIFF of many bands, or of more than 8 bits, is looked at; what is stored stays as it is."""

    channels: tuple[Band, ...] = Field(
        min_length=1,
        description="numbers of the bands, from 1, that are seen as R, G and B; or one, seen as grey",
    )
    levels: tuple[Range, ...] | None = Field(
        None,
        description="for each of them the samples that become level 0 and level 255, the same for all "
        "images; null: percentiles of each image's own",
    )
    percentiles: Range = Field(
        (2.0, 98.0), description="where `levels` is null: which samples become level 0 and level 255, percent"
    )
    max_bytes: int = Field(
        MAX_BYTES,
        gt=0,
        description="largest width x height x bands x bytes of a sample that a header may promise",
    )

    @model_validator(mode="after")
    def _check(self) -> "BandView":
        if len(self.channels) not in (1, 3):
            raise ValueError(
                f"channels has {len(self.channels)} bands; give three for R, G and B, or one for grey"
            )
        if self.levels is not None and len(self.levels) != len(self.channels):
            raise ValueError(
                f"levels has {len(self.levels)} ranges for {len(self.channels)} channels; give one for each"
            )
        for low, high in self.levels or ():
            if not (np.isfinite([low, high]).all() and low < high):
                raise ValueError(f"levels has ({low}, {high}); a range needs lowest < highest")
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"percentiles is ({low}, {high}); it needs 0 <= lowest < highest <= 100")
        return self


def lacking(num_bands: int, config: BandView) -> str | None:
    """Say which band is asked for and not there; None where all are."""
    most = max(config.channels)
    return f"band {most} of {num_bands}" if most > num_bands else None


def view_of(samples: Shaped[np.ndarray, "h w bands"], config: BandView) -> UInt8[np.ndarray, "h w 3"]:
    """Render a picture's bands as RGB levels, writable.

    A sample that is no number has level 0. By percentiles each channel is stretched by itself; one that is
    the same everywhere is level 0. They are order statistics of an even grid of about 100,000 samples, so
    that every machine finds the same ones.

    Args:
        samples: integers or floats; there are all bands that are asked for (see `lacking`).
        config: which bands, and their levels.
    """
    size = (samples.shape[1], samples.shape[0])
    bands = [samples[..., number - 1] for number in config.channels]
    ranges = config.levels or [_range_of(band, size, config.percentiles) for band in bands]

    def work(box: Box) -> UInt8[np.ndarray, "_ _ 3"]:
        left, top, right, bottom = box
        seen = [
            _levels(band[top:bottom, left:right], *found) for band, found in zip(bands, ranges, strict=True)
        ]
        return np.stack(seen * (3 // len(seen)), axis=2)

    return in_bands(size, work)


def _range_of(band: Shaped[np.ndarray, "h w"], size: tuple[int, int], percentiles: Range) -> Range:
    some = grid(size, lambda box: band[box[1] : box[3], box[0] : box[2]])
    known = np.sort(some[np.isfinite(some)], axis=None)
    if not known.size:
        return 0.0, 0.0
    low, high = (float(known[round(share / 100 * (known.size - 1))]) for share in percentiles)
    return (low, high) if low < high else (float(known[0]), float(known[-1]))  # nearly all are alike


def _levels(band: Shaped[np.ndarray, "h w"], low: float, high: float) -> UInt8[np.ndarray, "h w"]:
    if low == high:
        return np.zeros(band.shape, np.uint8)
    if band.dtype.kind == "f":
        band = np.nan_to_num(band.astype(np.float64), nan=low, posinf=high, neginf=low)
    return Scaling(low, high)(band)
