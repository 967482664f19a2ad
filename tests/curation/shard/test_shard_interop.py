"""Other people's readers find in our shards what we put there."""

import io
import json
import subprocess
import tarfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curation.shard import layout
from curation.shard.sample import Sample, encode_members
from curation.shard.write import ShardReceipt

WriteDataset = Callable[..., list[ShardReceipt]]


def _picture(number: int, pil_format: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (16, 12, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, pil_format)
    return out.getvalue()


def _samples(count: int, first: int = 0) -> list[Sample]:
    """Curated samples, which no other image brought in, before retrieved ones."""
    samples = []
    for number in range(first, first + count):
        retrieved = number >= count // 2
        meta = {
            "image_id": f"{number:032x}",
            "pool": "web",
            "key": f"ü/{number}.v1.jpg",
            "score": number / 7 if retrieved else None,
            "by_key": "a.jpg" if retrieved else None,
            "width": 12,
            "height": 16,
        }
        sidecars = {
            "txt": f"caption {number}".encode(),
            "json": b'{"width": 1}',
            "seg.png": _picture(9, "PNG"),
        }
        samples.append(Sample(f"{number:032x}", "jpg", _picture(number), meta, sidecars))
    return samples


@pytest.fixture
def shards(tmp_path: Path, write_dataset: WriteDataset) -> tuple[Path, list[Sample]]:
    samples = _samples(30)
    write_dataset(tmp_path / "dataset", samples[:20], samples[20:])
    return tmp_path / "dataset", samples


def test_tarfile_and_gnu_tar(shards: tuple[Path, list[Sample]]) -> None:
    root, samples = shards
    files = [(f"{s.key}.{name}", data) for s in samples[:20] for name, data in encode_members(s)]
    with tarfile.open(root / "x-000000.tar") as tar:
        found = [(member, tar.extractfile(member)) for member in tar]
        assert [(member.name, stream.read()) for member, stream in found if stream] == files
        assert {(m.mode, m.uid, m.gid, m.mtime, m.type) for m, _ in found} == {(0o644, 0, 0, 0, b"0")}
    listed = subprocess.run(["tar", "-tf", root / "x-000000.tar"], capture_output=True, text=True, check=True)
    assert (listed.stdout.splitlines(), listed.stderr) == ([name for name, _ in files], "")


def test_webdataset(shards: tuple[Path, list[Sample]]) -> None:
    webdataset = pytest.importorskip("webdataset")
    root, samples = shards
    urls = [str(root / f"x-{n:06d}.tar") for n in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves closing to the collector
        read = list(webdataset.WebDataset(urls, shardshuffle=False, handler=webdataset.reraise_exception))
    assert [sample["__key__"] for sample in read] == [sample.key for sample in samples]
    for got, sample in zip(read, samples, strict=True):
        assert {name: got[name] for name in got if name[:2] != "__"} == dict(encode_members(sample))
        assert json.loads(got["json"]) == {
            **sample.meta, "sidecars": {"seg.png": "seg.png", "source.json": "json", "txt": "txt"}
        }  # fmt: skip
        assert (got["jpg"], got["source.json"]) == (sample.data, sample.sidecars["json"])


def test_wids(shards: tuple[Path, list[Sample]], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wids = pytest.importorskip("wids")
    root, samples = shards
    (tmp_path / "cache").mkdir()
    dataset = wids.ShardListDataset(
        str(root / "index.json"), cache_dir=str(tmp_path / "cache"), keep=True, transformations=[]
    )
    try:
        assert len(dataset) == len(samples)
        assert dataset.dataset_name == "x"
        for row in (29, 0, 19, 20):
            got = {name: value.read() for name, value in dataset[row].items() if name.startswith(".")}
            assert got == {f".{name}": data for name, data in encode_members(samples[row])}
            assert dataset[row]["__key__"] == samples[row].key
    finally:
        dataset.close()


@pytest.fixture
def load_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[dict]]]:
    """Hugging Face's load_dataset over some shards, offline, with a cache of its own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()

    def load(paths: list[Path], streaming: bool) -> list[dict]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = datasets.load_dataset(
                "webdataset",
                data_files=[str(path) for path in paths],
                split="train",
                streaming=streaming,
                cache_dir=str(tmp_path / "hf"),
            )
            return list(dataset.cast_column("jpg", datasets.Image(decode=False)))

    yield load
    datasets.enable_progress_bars()


@pytest.mark.parametrize("streaming", [True, False])
def test_hugging_face_datasets(
    tmp_path: Path,
    write_dataset: WriteDataset,
    load_dataset: Callable[..., list[dict]],
    streaming: bool,
) -> None:
    samples = _samples(30)
    known = np.array([[s.meta["score"] is not None, s.meta["by_key"] is not None] for s in samples])
    order = layout.lead_with_typical(np.zeros(30, dtype=np.int64), known)
    samples = [samples[row] for row in order]
    write_dataset(tmp_path / "dataset", samples[:20], samples[20:])
    read = load_dataset(sorted((tmp_path / "dataset").glob("*.tar")), streaming)
    assert [sample["__key__"] for sample in read] == [sample.key for sample in samples]
    for got, sample in zip(read, samples, strict=True):
        assert got["jpg"]["bytes"] == sample.data
        assert {name: got["json"][name] for name in sample.meta} == sample.meta
        assert (got["txt"], got["source.json"]) == (sample.sidecars["txt"].decode(), {"width": 1})


def test_hugging_face_datasets_needs_typical_samples_in_front(
    tmp_path: Path, write_dataset: WriteDataset, load_dataset: Callable[..., list[dict]]
) -> None:
    """The reason for `lead_with_typical`; when this no longer raises, it may go."""
    write_dataset(tmp_path / "dataset", _samples(30))
    with pytest.raises(Exception, match="error occurred while generating"):
        load_dataset([tmp_path / "dataset" / "x-000000.tar"], False)
