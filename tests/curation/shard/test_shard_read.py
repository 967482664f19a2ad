"""The reader gives back what was written, and refuses what was damaged."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from curation.errors import IntegrityError
from curation.shard import read
from curation.shard.read import ShardReader
from curation.shard.sample import Sample
from curation.shard.write import ShardReceipt

Dataset = tuple[Path, list[Sample], list[ShardReceipt]]


@pytest.fixture
def dataset(
    tmp_path: Path, make_sample: Callable[..., Sample], write_dataset: Callable[..., list[ShardReceipt]]
) -> Dataset:
    samples = [
        make_sample(i, 100 + 37 * i, **({"txt": b"%d" % i} if i % 3 else {"json": b"{", "cls": b"1"}))
        for i in range(60)
    ]
    root = tmp_path / "dataset"
    return root, samples, write_dataset(root, samples[:25], samples[25:26], samples[26:])


def test_every_sample_is_read_by_its_place(dataset: Dataset) -> None:
    root, samples, _ = dataset
    with ShardReader(str(root)) as reader:
        assert len(reader) == 60
        assert [reader.locate(row) for row in (0, 24, 25, 26, 59)] == [
            (0, 0),
            (0, 24),
            (1, 0),
            (2, 0),
            (2, 33),
        ]
        for row in random.Random(0).sample(range(60), 60):
            assert reader.read(*reader.locate(row)) == samples[row]
            assert reader.read_image(*reader.locate(row)) == samples[row].data
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda row: reader.read(*reader.locate(row)), range(60))) == samples
        for place in [(0, 25), (0, -1), (3, 0), (-1, 0)]:
            with pytest.raises(IndexError):
                reader.read(*place)
            with pytest.raises(IndexError):
                reader.read_image(*place)
        with pytest.raises(IndexError):
            reader.locate(60)


@pytest.mark.parametrize("span_bytes", [1, 5000, 8 << 20])
def test_iterate_gives_all_in_order_from_anywhere(
    dataset: Dataset, span_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, samples, _ = dataset
    monkeypatch.setattr(read, "_SPAN_BYTES", span_bytes)
    with ShardReader(str(root)) as reader:
        assert list(reader.iterate()) == samples
        assert list(reader.iterate(23, 27)) == samples[23:27]
        assert list(reader.iterate(60)) == []


def test_shards_are_read_by_ranges_from_an_object_store(dataset: Dataset) -> None:
    root, samples, receipts = dataset
    fs = fsspec.filesystem("memory")
    fs.put(str(root), "/bucket/dataset", recursive=True)
    try:
        with ShardReader("memory://bucket/dataset") as reader:
            assert reader.read(2, 5) == samples[31]
            assert list(reader.iterate(20, 40)) == samples[20:40]
        read.verify_shard("memory://bucket/dataset/x-000000.tar", sha256=receipts[0].sha256, num_samples=25)
    finally:
        fs.rm("/bucket", recursive=True)


def test_verify_accepts_what_was_written_and_names_what_was_not(dataset: Dataset) -> None:
    root, _, receipts = dataset
    path = root / "x-000000.tar"
    whole = path.read_bytes()
    read.verify_shard(str(path), sha256=receipts[0].sha256, num_samples=25)
    offset = receipts[0].index["offset"][5].as_py()
    damaged = {
        "cut in a member": whole[: offset + 3],
        "cut after a member": whole[: offset - 512],
        "cut in the end mark": whole[:-1],
        "flipped data": whole[: offset + 1] + bytes([whole[offset + 1] ^ 1]) + whole[offset + 2 :],
        "flipped header": whole[: offset - 500] + bytes([whole[offset - 500] ^ 1]) + whole[offset - 499 :],
        "zeroed header": whole[: offset - 512] + bytes(512) + whole[offset:],
        "something appended": whole + whole,
        "empty": b"",
    }
    for content in damaged.values():
        path.write_bytes(content)
        with pytest.raises(IntegrityError, match=r"x-000000\.tar"):
            read.verify_shard(str(path), sha256=receipts[0].sha256, num_samples=25)
    path.write_bytes(whole)
    with pytest.raises(IntegrityError, match="not the shard"):
        read.verify_shard(str(path), sha256=receipts[0].sha256, num_samples=26)


def test_a_reader_refuses_a_shard_that_its_index_does_not_fit(dataset: Dataset) -> None:
    root, _, _ = dataset
    whole = (root / "x-000000.tar").read_bytes()
    (root / "x-000000.tar").write_bytes(whole[:-10_240])
    (root / "index" / "x-000001.parquet").write_bytes((root / "index" / "x-000002.parquet").read_bytes())
    (root / "index" / "x-000002.parquet").write_bytes(b"PAR1")
    with ShardReader(str(root)) as reader:
        with pytest.raises(IntegrityError, match="changed its length"):
            reader.read(0, 0)
        with pytest.raises(IntegrityError, match="is not the index of x-000001"):
            reader.read_image(1, 0)
        with pytest.raises(IntegrityError, match="x-000002"):
            reader.read(2, 0)
    (root / "index.json").write_text("[]")
    with pytest.raises(IntegrityError, match="not a list of shards"):
        ShardReader(str(root))


def test_indexes_that_are_not_needed_are_forgotten(dataset: Dataset) -> None:
    root, samples, _ = dataset
    with ShardReader(str(root), max_indexes=1) as reader:
        for row in (0, 30, 25, 1):
            assert reader.read(*reader.locate(row)) == samples[row]
