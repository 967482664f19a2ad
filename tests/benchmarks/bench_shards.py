"""Writing shards with their hashes, and reading samples, beside webdataset: one JSON line each.

    python tests/benchmarks/bench_shards.py

The samples are of 110 KB, the size of a web photograph, and lie in memory; the files lie in the page cache.
Both sides are measured in turn, and the median of five counts. Ours runs by one thread and by two: a run
writes as many shards at a time as it has workers, and a data loader reads by as many. The reference writer
is webdataset's ShardWriter plus the same hashes, SHA-256 of the finished tar: one stream, of one thread.
"""

import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import webdataset

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from curation import storage
from curation.shard.read import ShardReader
from curation.shard.sample import Sample, index_name
from curation.shard.write import ShardReceipt, index_json, write_shard

NUM_SAMPLES = 5000
SAMPLE_BYTES = 110_000
NUM_REPEATS = 5


def make_samples() -> list[Sample]:
    """Samples with the KEY.json that a run writes."""
    samples = []
    for number in range(NUM_SAMPLES):
        data = os.urandom(SAMPLE_BYTES)
        key = hashlib.sha256(data).hexdigest()[:32]
        meta = {
            "image_id": key,
            "pool": "web",
            "key": f"folder/{number:08d}.jpg",
            "uri": f"/data/web/folder/{number:08d}.jpg",
            "origin": "retrieved",
            "by_key": f"train/n{number}.jpg",
            "score": number / 7000,
            "cluster": number % 1000,
            "width": 500,
            "height": 375,
        }
        samples.append(Sample(key, "jpg", data, meta))
    return samples


def write_ours(folder: Path, samples: list[Sample], *, num_threads: int) -> str:
    """A shard by every thread with its hash and its index, as the shard stage writes it."""
    (folder / "index").mkdir(exist_ok=True)

    def write_slice(number: int) -> ShardReceipt:
        receipt = write_shard(folder / f"ours-{number:06d}.tar", samples[number::num_threads])
        storage.write_table(str(folder / index_name(receipt.name)), receipt.index)
        return receipt

    with ThreadPoolExecutor(num_threads) as pool:
        receipts = list(pool.map(write_slice, range(num_threads)))
    (folder / "index.json").write_bytes(index_json("ours", receipts))
    return receipts[0].sha256


def write_reference(folder: Path, samples: list[Sample]) -> str:
    """The same samples by ShardWriter, which encodes the JSON too; then the hash of the file."""
    pattern = str(folder / "theirs-%06d.tar")
    with webdataset.ShardWriter(pattern, maxcount=10**9, maxsize=1e12, mtime=0, verbose=0) as writer:
        for sample in samples:
            writer.write({"__key__": sample.key, "jpg": sample.data, "json": sample.meta})
    return storage.sha256_file(str(folder / "theirs-000000.tar"))[0]


def read_ours(folder: Path, order: list[int], *, num_threads: int) -> int:
    """Image bytes in random order, by index; as in a data loader, each thread drops what it has used."""
    with ShardReader(str(folder)) as reader, ThreadPoolExecutor(num_threads) as pool:
        reader.index(0)
        slices = [order[first::num_threads] for first in range(num_threads)]
        return sum(pool.map(lambda rows: sum(len(reader.read_image(0, row)) for row in rows), slices))


def read_reference(folder: Path) -> int:
    """Image bytes in the order of the tar, the only one that webdataset has."""
    dataset = webdataset.WebDataset(str(folder / "theirs-000000.tar"), shardshuffle=False)
    return sum(len(sample["jpg"]) for sample in dataset)


def measure(what: str, ours: Callable[[], object], reference: Callable[[], object], note: str) -> None:
    """Run both in turn and print the JSON line."""
    seconds: dict[str, list[float]] = {"ours": [], "reference": []}
    for _ in range(NUM_REPEATS):
        for side, run in (("ours", ours), ("reference", reference)):
            start = time.perf_counter()
            run()
            seconds[side].append(time.perf_counter() - start)
    rate, reference_rate = (NUM_SAMPLES / statistics.median(seconds[side]) for side in ("ours", "reference"))
    line = {
        "what": what,
        "size": f"{NUM_SAMPLES} samples of {SAMPLE_BYTES} bytes",
        "rate": round(rate),
        "unit": "samples/s",
        "reference": note,
        "reference_rate": round(reference_rate),
        "ratio": round(rate / reference_rate, 2),
    }
    print(json.dumps(line))


def main() -> None:
    """Write, then read."""
    samples = make_samples()
    # A memory file system where there is one: the disk's own speed is nobody's merit here.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        folder = Path(name)
        for num_threads in (2, 1):  # one shard last: it is what is read
            measure(
                f"shard_write by {num_threads} thread{'s' * (num_threads > 1)}",
                lambda n=num_threads: write_ours(folder, samples, num_threads=n),  # type: ignore[misc]
                lambda: write_reference(folder, samples),
                "webdataset.ShardWriter + SHA-256 of the tar",
            )
        order = sorted(range(NUM_SAMPLES), key=lambda row: samples[row].key)
        for num_threads in (1, 2):
            measure(
                f"shard_read by {num_threads} thread{'s' * (num_threads > 1)}",
                lambda n=num_threads: read_ours(folder, order, num_threads=n),  # type: ignore[misc]
                lambda: read_reference(folder),
                "webdataset.WebDataset, no decoding",
            )


if __name__ == "__main__":
    main()
