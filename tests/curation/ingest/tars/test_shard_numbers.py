"""Sets of numbered files that lack some."""

from pathlib import Path

import pytest

from curation import storage
from curation.ingest.problems import Findings
from curation.ingest.source_files import list_units
from curation.ingest.sources import HuggingFaceSource, ParquetSource, TarSource, UrlSource, WarcSource
from curation.ingest.tars.shard_numbers import with_gaps_told


def gaps(folder: Path, kind: type, *names: str, path: str = "", **options: str) -> list[str]:
    """What is noted of a source over files of these names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    findings = Findings()
    units = list(list_units(kind(path=f"{folder}{path}", **options), findings))
    assert len(units) == len(names) or options
    assert findings.problems == []
    return [note.detail for note in findings.notes if note.what == "missing_files"]


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        (TarSource, ".tar"),
        (ParquetSource, ".parquet"),
        (HuggingFaceSource, "-0a1b2c.parquet"),
        (WarcSource, ".warc"),
    ],
)
def test_a_number_that_is_not_there_is_named(tmp_path: Path, kind: type, suffix: str):
    names = [f"data/train-0000{number}-of-00003{suffix}" for number in (0, 2)]
    wanted = ["of 3 numbered files 1 are not there: 00001"]
    assert gaps(tmp_path, kind, *names) == wanted
    if kind is not HuggingFaceSource:
        assert gaps(tmp_path, kind, *names, path=f"/data/train-*-of-00003{suffix}") == wanted
        assert gaps(tmp_path, kind, names[0], path=f"/{names[0]}") == []  # one file is one file
    assert gaps(tmp_path, kind, *names, f"data/train-00001-of-00003{suffix}") == []


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        # The last are missing too, and sets are told apart by folder and name.
        (["a-000-of-005.tar"], ["of 5 numbered files 4 are not there: 001, 002, 003, 004"]),
        (["a/x-0-of-2.tar", "b/x-1-of-2.tar"], [f"of 2 numbered files 1 are not there: {n}" for n in (1, 0)]),
        (["x-1-of-3.tar", "x-3-of-3.tar"], ["of 3 numbered files 1 are not there: 2"]),  # counted from one
        (["x-1-of-2.tar", "x-2-of-2.tar.gz"], []),
        (["x_00001_of_00002.tar"], ["of 2 numbered files 1 are not there: 00000"]),
        (
            ["x-0-of-1000.tar"],
            ["of 1,000 numbered files 999 are not there: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 989 more"],
        ),
        (["x-0000000-of-9999999.tar"], None),
        # Without a total: between the first and the last, where more are there than not.
        (
            ["s-000010.tar", "s-000011.tar", "s-000013.tar.gz"],
            ["of 4 numbered files 1 are not there: 000012"],
        ),
        (["00000.tar", "00001.tar", "00900.tar"], []),
        (["20200131.tar", "20200201.tar"], []),
        (["a.tar", "b-12.tar", "b-14.tar"], []),
    ],
)
def test_sets_and_their_gaps(tmp_path: Path, names: list[str], wanted: list[str] | None):
    found = gaps(tmp_path, TarSource, *names)
    assert found == wanted if wanted is not None else len(found) == 1


def test_lists_and_splits(tmp_path: Path):
    assert gaps(tmp_path / "u", UrlSource, "0000.csv", "0001.csv", "0003.csv") == [
        "of 4 numbered files 1 are not there: 0002"
    ]
    names = ["train-00000-of-00001.parquet", "test-00001-of-00002.parquet"]
    assert gaps(tmp_path / "h", HuggingFaceSource, *names, split="train") == []
    assert gaps(tmp_path / "h", HuggingFaceSource, *names, split="test") == [
        "of 2 numbered files 1 are not there: 00000"
    ]


def test_the_files_pass_and_the_gaps_are_told_behind_them() -> None:
    files = [
        storage.FileInfo(f"/d/{name}", name, 1, "v") for name in ("a-0000.tar", "a-0001.tar", "a-0003.tar")
    ]
    findings = Findings()
    assert list(with_gaps_told(iter(files), findings, are_all=True)) == files
    assert [(note.what, note.path) for note in findings.notes] == [("missing_files", "/d/a-0000.tar")]
    assert findings.notes[0].detail == "of 4 numbered files 1 are not there: 0002"
    some = Findings()
    assert len(list(with_gaps_told(iter(files), some, are_all=False))) == 3
    assert not some.notes  # whoever names some files may mean these
