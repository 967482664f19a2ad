"""A dataset as its manifest names it, the places of its images, and copies of its shards."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from curation.errors import IntegrityError, SourceError
from curation.shard.read import ShardReader, fetch_shard, open_dataset
from curation.shard.sample import Sample
from curation.shard.write import ShardReceipt


@pytest.fixture
def samples(make_sample: Callable[..., Sample]) -> list[Sample]:
    return [make_sample(n, 100 + 53 * n, **({"txt": b"a word"} if n % 3 else {})) for n in range(12)]


@pytest.fixture
def run_dir(tmp_path: Path, samples: list[Sample], write_dataset: Callable[..., list[ShardReceipt]]) -> Path:
    receipts = write_dataset(tmp_path / "run" / "dataset-1", samples[:5], samples[5:6], samples[6:])
    listed = [{"path": f"dataset-1/{r.name}", "sha256": r.sha256} for r in receipts]
    manifest = {"dataset_dir": "dataset-1", "shards": listed}
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path / "run"


def rewrite(run_dir: Path, change: Callable[[dict], object]) -> None:
    path = run_dir / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_a_run_directory_and_its_manifest_are_the_same(run_dir: Path, samples: list[Sample]) -> None:
    reader, digest = open_dataset(str(run_dir))
    assert len(reader) == 12
    assert [s.data for s in reader.iterate()] == [s.data for s in samples]
    other, same = open_dataset(str(run_dir / "manifest.json"))
    assert (other.root, same) == (reader.root, digest)
    joined = "".join(shard.sha256 for shard in reader.shards)
    assert digest == hashlib.sha256(joined.encode()).hexdigest()
    assert reader.is_local


def test_the_digest_names_the_content(
    run_dir: Path, samples: list[Sample], tmp_path: Path, write_dataset: Callable[..., list[ShardReceipt]]
) -> None:
    moved = tmp_path / "moved"
    run_dir.rename(moved)
    _, digest = open_dataset(str(moved))
    receipts = write_dataset(tmp_path / "cut" / "dataset-1", samples[:6], samples[6:])
    listed = [{"path": f"dataset-1/{r.name}", "sha256": r.sha256} for r in receipts]
    (tmp_path / "cut" / "manifest.json").write_text(
        json.dumps({"dataset_dir": "dataset-1", "shards": listed})
    )
    assert open_dataset(str(tmp_path / "cut"))[1] != digest


def test_on_a_store(run_dir: Path, samples: list[Sample], tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.put(str(run_dir), "/bucket/run", recursive=True)
    try:
        reader, digest = open_dataset("memory://bucket/run")
        assert digest == open_dataset(str(run_dir))[1]
        assert not reader.is_local
        offsets, sizes = reader.image_ranges(2)
        assert reader.read_range(2, int(offsets[1]), int(sizes[1])) == samples[7].data
        fetch_shard(reader.shards[2], tmp_path / "spool" / "copy.tar")
        copy = str(tmp_path / "spool" / "copy.tar")
        assert reader.read_range(2, int(offsets[1]), int(sizes[1]), path=copy) == samples[7].data
        assert [p.name for p in (tmp_path / "spool").iterdir()] == ["copy.tar"]
    finally:
        fs.rm("/bucket", recursive=True)


@pytest.mark.parametrize("path", ["", "/manifest.json"])
def test_no_manifest(path: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no manifest\.json.*lvd run"):
        open_dataset(f"{tmp_path}{path}")


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"dataset_dir": "x", "shards": [{"path": "x/y"}]}', "null"]
)
def test_a_file_that_is_no_manifest(text: str, run_dir: Path) -> None:
    (run_dir / "manifest.json").write_text(text)
    with pytest.raises(IntegrityError, match="is no manifest"):
        open_dataset(str(run_dir))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["shards"].pop(),
        lambda m: m["shards"].reverse(),
        lambda m: m["shards"][1].update(sha256="0" * 64),
        lambda m: m["shards"][1].update(path="dataset-1/y.tar"),
    ],
)
def test_an_index_of_other_shards(change: Callable[[dict], object], run_dir: Path) -> None:
    rewrite(run_dir, change)
    with pytest.raises(IntegrityError, match="lists other shards than"):
        open_dataset(str(run_dir))


def test_the_places_of_images_are_those_in_the_tar(run_dir: Path, samples: list[Sample]) -> None:
    reader, _ = open_dataset(str(run_dir))
    number = 0
    for shard in range(3):
        data = Path(reader.shards[shard].path).read_bytes()
        offsets, sizes = reader.image_ranges(shard)
        assert len(offsets) == reader.shards[shard].num_samples
        for offset, size in zip(offsets, sizes, strict=True):
            assert data[offset : offset + size] == samples[number].data
            number += 1
    assert number == 12


@pytest.mark.parametrize("fault", ["flip", "cut", "longer"])
def test_a_damaged_shard_is_not_fetched(fault: str, run_dir: Path, tmp_path: Path) -> None:
    reader, _ = open_dataset(str(run_dir))
    path = Path(reader.shards[2].path)
    data = path.read_bytes()
    spoilt = {"flip": bytes([data[0] ^ 1]) + data[1:], "cut": data[:-512], "longer": data + bytes(512)}
    path.write_bytes(spoilt[fault])
    with pytest.raises(IntegrityError, match="is not the shard that was written"):
        fetch_shard(reader.shards[2], tmp_path / "spool" / "copy.tar")
    assert not list((tmp_path / "spool").iterdir())


def test_a_shard_that_is_missing_is_said_to_be(run_dir: Path, tmp_path: Path) -> None:
    reader, _ = open_dataset(str(run_dir))
    path = Path(reader.shards[2].path)
    path.unlink()
    with pytest.raises(IntegrityError, match="shard of the dataset is missing: ") as caught:
        fetch_shard(reader.shards[2], tmp_path / "spool" / "copy.tar")
    assert str(path) in str(caught.value)
    assert "run the curation again" in caught.value.remedy


def test_an_interrupted_fetch_leaves_nothing(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, _ = open_dataset(str(run_dir))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch_shard(reader.shards[0], tmp_path / "spool" / "copy.tar")
    assert not list((tmp_path / "spool").iterdir())


def test_reading_past_the_end(run_dir: Path) -> None:
    with ShardReader(str(run_dir / "dataset-1")) as reader, pytest.raises(OSError, match="ends at"):
        reader.read_range(0, reader.shards[0].num_bytes - 10, 20)
