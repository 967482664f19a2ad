"""What describe, score and judge have to do: a part is an item."""

from collections.abc import Iterator
from dataclasses import replace

from curation.describe.describe import MIN_AHEAD_ROWS
from pipelines.stages.forecast import Sizes, StepForecast

_DECODED_BYTES = 3e6  # of a picture, about: a megapixel


def forecast_describe(sizes: Sizes) -> Iterator[StepForecast]:
    """A part is held as vectors, and what is decoded ahead of the model."""
    config, n, rows = sizes.config.describe, sizes.total, sizes.config.ingest.part_rows
    vectors = 2.0 * (sizes.shares.embedding_dim + (sizes.shares.descriptor_dim or 0))
    held = rows * vectors + max(MIN_AHEAD_ROWS, config.embed.batch_rows) * _DECODED_BYTES
    read = n * sizes.shares.image_bytes
    yield replace(sizes.by_part("describe", "describe", read=read, held=held), loads_model=True)
    if config.heads.on:
        yield sizes.by_part("score", "describe", read=2 * n * vectors, held=8 * rows * vectors)
    yield sizes.by_part("judge", "judge", read=80.0 * n, held=200.0 * rows)
