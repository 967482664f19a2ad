"""Arrow streams with image bytes: however their columns are packed, and what inflates without measure."""

import contextlib
import json
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from peak_memory import risen_mb

from curation import storage
from curation.errors import ConfigError
from curation.ingest.problems import Findings
from curation.ingest.sources import HuggingFaceSource
from curation.ingest.staging import StagedImage
from curation.ingest.tables.arrow_images import arrow_images


def write(path: Path, columns: dict[str, Any], *, codec: str | None = None, rows: int = 1000) -> Path:
    table = pa.table(columns)
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


def images_of(path: Path, findings: Findings | None = None, **settings: Any) -> list[StagedImage]:
    source = HuggingFaceSource(path=str(path), **settings)
    return list(arrow_images(storage.stat(str(path)), source, findings=findings or Findings()))


@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
def test_columns_however_they_are_packed(tmp_path: Path, codec: str | None):
    images = [bytes([i]) * 100 * i for i in range(8)]
    words = pa.array(["a", "b", "a", "a", "b", "a", "c", "c"])
    columns = {
        "image": pa.array(images, pa.binary()).dictionary_encode(),
        "word": words.dictionary_encode(),
        "run": pa.RunEndEncodedArray.from_arrays([3, 8], ["x", "y"]),
    }
    findings = Findings()
    found = images_of(write(tmp_path / "a.arrow", columns, codec=codec, rows=3), findings)
    assert [i.data for i in found] == images
    expected = [{"word": word.as_py(), "run": "xy"[i > 2]} for i, word in enumerate(words)]
    assert [json.loads(i.sidecars["json"]) for i in found] == expected
    assert (findings.problems, findings.notes) == ([], [])


def test_runs_of_images(tmp_path: Path):
    columns = {"image": pa.RunEndEncodedArray.from_arrays([1, 3, 4], pa.array([b"1", b"2", None]))}
    found = images_of(write(tmp_path / "a.arrow", columns))
    assert [i.data for i in found] == [b"1", b"2", b"2", None]


BIG = 280_000_000
BOMBS = {
    "a buffer": lambda: {"image": [b"1"], "text": ["x" * BIG]},
    "a dictionary": lambda: {"image": [b"1"], "text": pa.array(["x" * BIG]).dictionary_encode()},
    "many buffers": lambda: {"image": [b"1"]} | {f"t{i}": ["x" * (BIG // 7)] for i in range(8)},
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_batch_that_inflates_without_measure_is_not_read(tmp_path: Path, name: str):
    write(tmp_path / "small.arrow", {"image": [b"1"], "text": ["x"]}, codec="zstd")
    bomb = write(tmp_path / "bomb.arrow", BOMBS[name](), codec="zstd")
    assert bomb.stat().st_size < 200_000
    setup = """
        from curation import storage
        from curation.ingest.tables.arrow_images import arrow_images
        from curation.ingest.problems import Findings
        from curation.ingest.sources import HuggingFaceSource
    """
    work = """
        findings = Findings()
        list(arrow_images(storage.stat(path), HuggingFaceSource(path=path), findings=findings))
        assert [p.what for p in findings.problems] == ["unpacks_too_large"] * ("bomb" in path)
    """
    assert risen_mb(setup, work, harmless=tmp_path / "small.arrow", tried=bomb) < 50


def test_rows_before_a_bomb_have_come(tmp_path: Path):
    columns = {"image": [b"1", b"2"], "text": ["x", "y" * BIG]}
    findings = Findings()
    found = images_of(write(tmp_path / "a.arrow", columns, codec="lz4", rows=1), findings)
    assert [i.data for i in found] == [b"1"]
    [problem] = findings.problems
    assert problem.what == "unpacks_too_large"
    assert problem.detail.startswith("rows from 1 on: a compressed record batch of")


def test_a_claim_that_is_a_lie_costs_nothing(tmp_path: Path):
    """The length stands before the data: a terabyte is not asked for."""
    path = write(tmp_path / "a.arrow", {"image": [b"1"], "text": ["x" * 12_345]}, codec="zstd")
    data = path.read_bytes()
    claim = struct.pack("<q", 12_345)
    assert data.count(claim + b"\x28\xb5\x2f\xfd") == 1
    path.write_bytes(data.replace(claim + b"\x28\xb5", struct.pack("<q", 1 << 40) + b"\x28\xb5"))
    findings = Findings()
    assert images_of(path, findings) == []
    assert [p.what for p in findings.problems] == ["unpacks_too_large"]


def test_damage_is_no_crash(tmp_path: Path):
    """An offset that leads out of its buffer was followed, and ended the process."""
    columns = {
        "image": [b"1", b"22"],
        "text": ["x" * 100, "y"],
        "list": [[1, 2], [3]],
        "word": pa.array(["a", "b"]).dictionary_encode(),
    }
    for codec in (None, "zstd"):
        path = write(tmp_path / "a.arrow", columns, codec=codec)
        data = path.read_bytes()
        for offset in range(0, len(data), 11):
            for damaged in (data[:offset], data[:offset] + b"\xff\x7f" + data[offset + 2 :]):
                path.write_bytes(damaged)
                with contextlib.suppress(ConfigError):  # a column's name or type is what is damaged
                    images_of(path)


def test_odd_bytes_of_a_text_are_kept(tmp_path: Path):
    odd = pa.array([b"a\xff", b"b"], pa.binary())
    text = pa.StringArray.from_buffers(2, *odd.buffers()[1:])
    found = images_of(write(tmp_path / "a.arrow", {"image": [b"1", b"2"], "text": text}))
    assert [json.loads(i.sidecars["json"])["text"] for i in found] == ["a\udcff", "b"]
