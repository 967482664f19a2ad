"""What ingest has to do: an item for each source, and each unit that is staged first."""

import math
from collections.abc import Iterator

from curation.ingest.sources import UrlSource
from curation.ingest.units import UNIT_BYTES, has_units, is_staged
from pipelines.rows.staged import STAGED_STEP
from pipelines.stages.forecast import Sizes, StepForecast


def forecast_ingest(sizes: Sizes) -> Iterator[StepForecast]:
    """Units are so many rows of a list, or a file, of which nothing is known but what is in it."""
    pools, image_bytes = sizes.config.pools, sizes.shares.image_bytes
    num_sources = sum(len(pool.sources) for pool in pools.values())
    num_listed, num_units, num_images = 0, 0, 0.0
    for name, pool in pools.items():
        each = sizes.images[name] / len(pool.sources)
        for source in filter(has_units, pool.sources):
            num_listed += 1
            if is_staged(source, source.path):  # as far as its path tells
                per_unit = source.unit_rows if isinstance(source, UrlSource) else UNIT_BYTES / image_bytes
                num_units += max(1, math.ceil(each / per_unit))
                num_images += each
    if num_listed:
        yield StepForecast(
            "ingest_units", "ingest", num_listed, "files listed", num_listed, 0, 1e6, "per file"
        )
    if num_units:
        yield StepForecast(
            STAGED_STEP, "ingest", num_units, "images", num_images, num_images * image_bytes, 200e6,
            "per image that is fetched or copied, by unit: so many rows of a list, or a file",
        )  # fmt: skip
    yield StepForecast(
        "ingest", "ingest", num_sources, "images", sizes.total, 0, 500.0 * sizes.config.ingest.part_rows,
        "per image listed, by source",
    )  # fmt: skip
