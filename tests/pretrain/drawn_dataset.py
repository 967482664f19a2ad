"""A finished dataset of drawn pictures: shards, their index, a manifest."""

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from curation import storage
from curation.shard import write
from curation.shard.sample import Sample, index_name


def draw_jpeg(number: int, *, size_px: tuple[int, int] = (48, 56)) -> bytes:
    """A smooth picture; each number has another."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8))
    out = io.BytesIO()
    coarse.resize((size_px[1], size_px[0]), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


def write_dataset_of(run_dir: Path, shards: Sequence[Sequence[bytes]]) -> Path:
    """Write lists of images' bytes as the shards of a finished run."""
    root = run_dir / "dataset-0123"
    (root / "index").mkdir(parents=True)
    receipts = []
    for number, images in enumerate(shards):
        samples = []
        for position, data in enumerate(images):
            digest = hashlib.sha256(data + b"%d/%d" % (number, position)).hexdigest()
            samples.append(Sample(digest[:32], "jpg", data, {"image_id": digest[:32]}))
        receipts.append(write.write_shard(root / f"x-{number:06d}.tar", samples))
    for receipt in receipts:
        storage.write_table(str(root / index_name(receipt.name)), receipt.index)
    (root / "index.json").write_bytes(write.index_json("x", receipts))
    listed = [
        {
            "path": f"{root.name}/{r.name}",
            "num_samples": r.num_samples,
            "bytes": r.num_bytes,
            "sha256": r.sha256,
        }
        for r in receipts
    ]
    (run_dir / "manifest.json").write_text(json.dumps({"dataset_dir": root.name, "shards": listed}))
    return run_dir


def write_drawn(run_dir: Path, *, shard_sizes: Sequence[int] = (13, 7, 17)) -> Path:
    """Drawn pictures, in shards of these sizes."""
    ends = np.cumsum(shard_sizes)
    return write_dataset_of(
        run_dir,
        [
            [draw_jpeg(int(n)) for n in range(end - size, end)]
            for end, size in zip(ends, shard_sizes, strict=True)
        ],
    )
