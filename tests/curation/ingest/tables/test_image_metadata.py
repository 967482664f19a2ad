"""The metadata of an imagefolder: rows by folder and picture, and what is said of bad ones."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import storage
from curation.errors import ConfigError
from curation.ingest.problems import Findings
from curation.ingest.tables.image_metadata import note_lost_folders, rows_of


def _file(tmp_path: Path, name: str, text: str) -> storage.FileInfo:
    (tmp_path / name).write_text(text)
    return storage.stat(str(tmp_path / name))


def _notes(findings: Findings) -> list[tuple[str, str]]:
    return [(note.what, note.detail) for note in findings.notes]


def test_each_format_says_the_same(tmp_path: Path) -> None:
    csv = _file(tmp_path, "metadata.csv", "file_name,text\na.jpg,one\nsub/b.jpg,two\n")
    lines = '{"file_name": "a.jpg", "text": "one"}\n\n{"file_name": "./sub/b.jpg", "text": "two"}\n'
    jsonl = _file(tmp_path, "metadata.jsonl", lines)
    table = pa.table({"file_name": ["a.jpg", "sub/b.jpg"], "text": ["one", "two"]})
    pq.write_table(table, tmp_path / "metadata.parquet")
    for file in (csv, jsonl, storage.stat(str(tmp_path / "metadata.parquet"))):
        findings = Findings()
        assert rows_of(file, "", findings=findings) == {"a.jpg": {"file_name": "a.jpg", "text": "one"}}
        [(key, row)] = rows_of(file, "sub", findings=findings).items()
        assert (key, row["text"]) == ("sub/b.jpg", "two")
        assert not findings.notes
        assert not findings.problems


def test_what_is_odd_is_counted_and_named(tmp_path: Path) -> None:
    text = "file_name,text\na.jpg,one\n,none\na.jpg,again\nb.jpg\n"
    file = _file(tmp_path, "metadata.csv", text)
    findings = Findings()
    assert rows_of(file, "", findings=findings)["a.jpg"]["text"] == "again"
    told = dict(_notes(findings)[:1] + _notes(findings)[2:])
    assert "1 rows cannot be read, the first of them row 3" in told["bad_rows"]
    assert "1 rows name a picture again, such as a.jpg" in told["duplicate_name"]
    assert _notes(findings)[1] == ("bad_rows", "1 rows have no file_name, the first of them row 1")


def test_without_a_column_of_names_nothing_can_be_meant(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no column 'file_name'.*save it with commas"):
        rows_of(_file(tmp_path, "metadata.csv", "file_name;text\na.jpg;one\n"), "", findings=Findings())


def test_damage_ends_the_rows_and_is_told(tmp_path: Path) -> None:
    file = _file(tmp_path, "metadata.parquet", "no parquet")
    findings = Findings()
    assert rows_of(file, "", findings=findings) == {}
    assert [problem.what for problem in findings.problems] == ["corrupt"]


def test_folders_without_pictures_are_told(tmp_path: Path) -> None:
    file = _file(tmp_path, "metadata.csv", "file_name,text\na.jpg,one\nsub/b.jpg,two\n")
    findings = Findings()
    note_lost_folders(file, {""}, findings)
    assert _notes(findings) == [
        ("unmatched", "1 rows name pictures in folders without any, such as sub/b.jpg")
    ]
