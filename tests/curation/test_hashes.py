"""What is remembered of files' hashes, and that it does not grow for ever."""

import hashlib
import json
from pathlib import Path

import pytest

from curation import hashes, storage
from curation.hashes import Hashes


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path in paths:
        path.write_text(path.name)
    return paths


def lines_of(record: Path) -> list[list[str]]:
    return [json.loads(line) for line in record.read_text().splitlines()]


def hash_nothing(path: str) -> tuple[str, int]:
    raise AssertionError(f"{path} is hashed again")


def test_a_record_of_what_files_were_before_is_compacted(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a spool, whose shards go and are fetched again."""
    monkeypatch.setattr(hashes, "_MIN_STALE", 10)
    record = tmp_path / "hashes.jsonl"
    stale = "".join(f"{json.dumps([str(path), str(i), 'old'])}\n" for i in range(10) for path in files)
    record.write_text(stale + "torn\n")
    expected = {str(path): storage.sha256_file(str(path))[0] for path in files}
    reader = Hashes(record, writes=False)  # another process, which has read all of it
    assert reader.sha256(str(files[0])) == expected[str(files[0])]
    inode = record.stat().st_ino

    writer = Hashes(record)
    assert {path: writer.sha256(path) for path in expected} == expected
    assert record.stat().st_ino == inode  # that locks lie on
    assert len(lines_of(record)) == 6  # as it was last, and as it is
    assert {path: sha256 for path, _, sha256 in lines_of(record)} == expected

    monkeypatch.setattr(storage, "sha256_file", hash_nothing)
    for one in (reader, Hashes(record)):
        assert {path: one.sha256(path) for path in expected} == expected


def test_a_record_of_many_files_is_let_be(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "_MIN_STALE", 10)
    record = tmp_path / "hashes.jsonl"
    record.write_text("".join(f"{json.dumps([f'/gone/{i}', 'stamp', 'hash'])}\n" for i in range(100)))
    assert Hashes(record, writes=False).holds(str(files[0]), "") is False
    Hashes(record).sha256(str(files[0]))
    assert len(lines_of(record)) == 101


def test_who_only_reads_a_record_does_not_compact_it(
    tmp_path: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "_MIN_STALE", 10)
    record = tmp_path / "hashes.jsonl"
    text = f"{json.dumps([str(files[0]), 'stamp', 'hash'])}\n" * 100
    record.write_text(text)
    Hashes(record, writes=False).sha256(str(files[0]))
    assert record.read_text() == text


def test_a_line_nested_beyond_measure_is_forgotten(tmp_path: Path, files: list[Path]) -> None:
    file = files[0]
    record = tmp_path / "hashes.jsonl"
    record.write_text("[" * 100_000 + "\n")
    expected = hashlib.sha256(file.read_bytes()).hexdigest()
    assert Hashes(record).sha256(str(file)) == expected
