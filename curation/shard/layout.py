"""Which image goes into which shard, and where: a seeded bucket shuffle, cut at a count or a size.

A full shuffle of a dataset would read every source part as often as there are shards. Instead the parts are
dealt at random into buckets that fit one worker's spool; a worker reads the parts of its bucket once, in
order, and writes the bucket's samples in the order of their shuffle keys. A run that fits one bucket is
shuffled completely.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64, UInt8, UInt64
from pydantic import BaseModel, ConfigDict, Field

from curation.pictures.blur import BlurConfig
from curation.tar_headers import BLOCK_BYTES, RECORD_BYTES

_NUM_LEADING = 5

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


class ShardConfig(BaseModel):
    """How a dataset is laid out in shards."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_samples: int = Field(default=10_000, ge=1, description="a shard closes at this many samples")
    max_bytes: int = Field(
        default=1_000_000_000,
        ge=2 * RECORD_BYTES,
        description="a shard's tar is at most this large (bytes), unless a single sample is larger",
    )
    max_side_px: int | None = Field(
        default=None,
        ge=16,
        description="longer side above which a picture is re-encoded smaller; null: original bytes",
    )
    jpeg_quality: int = Field(default=92, ge=1, le=100, description="JPEG quality of re-encoded pictures")
    blur_faces: BlurConfig | None = Field(
        default=None, description="blur the faces that `describe.faces` has found; null: leave them"
    )
    bucket_bytes: int = Field(
        default=16_000_000_000, ge=1, description="selected bytes that one worker spools and shuffles at once"
    )


def splitmix64(state: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """Scatter 64-bit numbers; a bijection, so different inputs stay different.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014, Fig. 16 (variant 13).
    """
    mixed = state + GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
    return mixed ^ (mixed >> np.uint64(31))


def _seed_state(seed: int) -> UInt64[np.ndarray, "1"]:
    return splitmix64(np.array([seed % 2**64], dtype=np.uint64))


def shuffle_key(seed: int, image_ids: UInt8[np.ndarray, "n 16"]) -> UInt64[np.ndarray, "n"]:
    """Give every image its place in the shuffle; it depends on the seed and the image alone.

    Args:
        seed: of the run.
        image_ids: the 16 bytes of each image id.

    Returns:
        Keys whose order is the order of the samples; equal keys go by image id (see `shuffle_order`).
    """
    halves = np.ascontiguousarray(image_ids).view("<u8").astype(np.uint64)
    return splitmix64(splitmix64(halves[:, 0] ^ _seed_state(seed)) ^ halves[:, 1])


def shuffle_order(seed: int, image_ids: UInt8[np.ndarray, "n 16"]) -> Int64[np.ndarray, "n"]:
    """The rows of `image_ids` in shuffled order; ties go by image id, then row.

    Args:
        seed: of the run.
        image_ids: the 16 bytes of each image id.

    Returns:
        A permutation: element i is the row of the sample that stands at place i.
    """
    high, low = np.ascontiguousarray(image_ids).view(">u8").astype(np.uint64).T
    return np.lexsort((low, high, shuffle_key(seed, image_ids))).astype(np.int64)


def plan_buckets(
    part_numbers: Sequence[int], bytes_per_part: Sequence[int], *, seed: int, bucket_bytes: int
) -> list[tuple[int, ...]]:
    """Deal the parts, in a seeded random order, into buckets of about equal size.

    Args:
        part_numbers: the parts, each once.
        bytes_per_part: selected bytes of each part; a part with none is in no bucket.
        seed: of the run.
        bucket_bytes: most selected bytes of a bucket, unless a single part has more.

    Returns:
        The parts of each bucket in ascending order, which is the order in which a worker reads them.
    """
    sizes = {part: size for part, size in zip(part_numbers, bytes_per_part, strict=True) if size > 0}
    keys = splitmix64(np.array(list(sizes), dtype=np.int64).view(np.uint64) ^ _seed_state(seed))
    order = sorted(zip(keys.tolist(), sizes, strict=True))
    # Closing at an even share as well as at the limit keeps the last bucket from being a poorly mixed rest.
    total = sum(sizes.values())
    share = total / max(1, -(-total // bucket_bytes))
    buckets: list[list[int]] = []
    filled = 0
    for _, part in order:
        if not buckets or filled + sizes[part] > bucket_bytes or filled >= share:
            buckets.append([])
            filled = 0
        buckets[-1].append(part)
        filled += sizes[part]
    return [tuple(sorted(bucket)) for bucket in buckets]


def cut_shards(sizes: Int64[np.ndarray, "n"], config: ShardConfig) -> list[tuple[int, int]]:
    """Cut a row of samples into shards: each closes at a count or a size, whichever comes first.

    Args:
        sizes: bytes that each sample takes in a tar, in the order of writing (`write.sample_bytes`).
        config: the limits.

    Returns:
        The (start, stop) of each shard. A sample above the limit has a shard of its own.
    """
    # The largest sum of samples whose tar, padded to a record, is still within the limit.
    budget = config.max_bytes // RECORD_BYTES * RECORD_BYTES - 2 * BLOCK_BYTES
    ends = np.cumsum(sizes, dtype=np.int64)
    cuts = []
    start = 0
    while start < len(sizes):
        before = int(ends[start - 1]) if start else 0
        fitting = int(np.searchsorted(ends, before + budget, side="right"))
        stop = min(max(fitting, start + 1), start + config.max_samples, len(sizes))
        cuts.append((start, stop))
        start = stop
    return cuts


def lead_with_typical(
    kinds: Int64[np.ndarray, "n"], known: Bool[np.ndarray, "n num_fields"]
) -> Int64[np.ndarray, "n"]:
    """Put up to five typical samples at a shard's start, the rest staying in order.

    Hugging Face `datasets` learns columns and types from a tar's first five samples: it refuses them when
    their members differ, and a field that is null in all five can hold no value later on. So the five are of
    the commonest kind, and between them have every optional field that any sample of that kind has.

    Args:
        kinds: a small number for each set of members (extension and sidecars).
        known: which optional fields of KEY.json have a value.

    Returns:
        A permutation: element i is the former place of the sample that now stands at place i.
    """
    candidates = np.flatnonzero(kinds == np.argmax(np.bincount(kinds)))
    free = np.ones(len(candidates), dtype=np.bool_)
    covered = np.zeros(known.shape[1], dtype=np.bool_)
    lead = []
    for _ in range(min(_NUM_LEADING, len(candidates))):
        gains = np.where(free, (known[candidates] & ~covered).sum(axis=1), -1)
        best = int(np.argmax(gains))  # the first of equals
        free[best] = False
        covered |= known[candidates[best]]
        lead.append(int(candidates[best]))
    rest = np.setdiff1d(np.arange(len(kinds)), lead)
    return np.concatenate([np.array(lead, dtype=np.int64), rest.astype(np.int64)])


def shard_name(name: str, number: int) -> str:
    """The file name of a shard: `NAME-000000.tar`."""
    return f"{name}-{number:06d}.tar"
