"""What is left to do once images are selected: a bucket of the dataset is an item; the lineage is one."""

from collections.abc import Iterator

from curation.shard.layout import plan_buckets
from pipelines.rows.groups import num_rows_of
from pipelines.stages.forecast import Sizes, StepForecast
from pipelines.stages.retrieve.forecast import num_kept

# Parts of a larger run are dealt into buckets several at a time.
_DEALT_PARTS = 1 << 15


def kept_bytes(sizes: Sizes) -> int:
    """Bytes of the dataset's images."""
    return round(num_kept(sizes) * (sizes.shares.kept_bytes or sizes.shares.image_bytes))


def forecast_shard(sizes: Sizes) -> Iterator[StepForecast]:
    """The bytes of the dataset are taken to lie evenly in the pools that may enter it."""
    config, num_bytes = sizes.config, kept_bytes(sizes)
    parts = sizes.parts_of(sizes.may_enter)
    each = num_bytes / max(num_rows_of(parts), 1)
    at_once = -(-sizes.num_parts // _DEALT_PARTS) or 1
    part_bytes: list[int] = []
    for alike in parts:
        num = -(-alike.num_parts // at_once)
        part_bytes += [round(each * num_rows_of([alike]) / num)] * num
    numbers, bucket_bytes = range(len(part_bytes)), config.shard.bucket_bytes
    buckets = plan_buckets(numbers, part_bytes, seed=config.seed, bucket_bytes=bucket_bytes)
    yield StepForecast(
        "shard", "shard", max(1, len(buckets)), "images written", num_kept(sizes), num_bytes, 200e6,
        "per image of the dataset (its bytes are read and written once), by bucket",
    )  # fmt: skip
    yield sizes.in_one_item("lineage", "shard", read=150.0 * sizes.total, held=80.0 * sizes.total)
