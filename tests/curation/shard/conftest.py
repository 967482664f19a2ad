"""Samples and small datasets of shards."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from curation import storage
from curation.shard import write
from curation.shard.sample import Sample, index_name


def _make_sample(number: int, num_bytes: int = 1000, **sidecars: bytes) -> Sample:
    data = np.random.default_rng(number).bytes(num_bytes)
    key = hashlib.sha256(data + b"%d" % number).hexdigest()[:32]
    meta = {
        "image_id": key,
        "content_sha256": hashlib.sha256(data).hexdigest(),
        "key": f"a/b.c/{number}.jpg",
        "score": number / 7,
        "by_key": None,
    }
    return Sample(key, "jpg", data, meta, sidecars)


def _write_dataset(root: Path, *shards: list[Sample]) -> list[write.ShardReceipt]:
    (root / "index").mkdir(parents=True)
    receipts = [write.write_shard(root / f"x-{n:06d}.tar", samples) for n, samples in enumerate(shards)]
    for receipt in receipts:
        storage.write_table(str(root / index_name(receipt.name)), receipt.index)
    (root / "index.json").write_bytes(write.index_json("x", receipts))
    return receipts


@pytest.fixture(scope="session")
def make_sample() -> Callable[..., Sample]:
    """Makes sample `number`: `num_bytes` random bytes, some meta and the sidecars given."""
    return _make_sample


@pytest.fixture(scope="session")
def write_dataset() -> Callable[..., list[write.ShardReceipt]]:
    """Writes lists of samples as the shards of a dataset folder."""
    return _write_dataset
