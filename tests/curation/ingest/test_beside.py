"""What a source passes over is counted once, and what is usual beside its files is not."""

from pathlib import Path

import pytest

from curation.errors import SourceError
from curation.ingest.beside import OtherFiles
from curation.ingest.problems import Findings
from curation.ingest.source_files import list_units
from curation.ingest.sources import HuggingFaceSource, ParquetSource, Source, TarSource, UrlSource, WarcSource

USUAL = [
    "README.md", "README", "LICENSE", "LICENSE.txt", "SHA256SUMS", "0.tar.md5", "index.json",
    "wids-meta.json.gz", "_SUCCESS", "0.txt", ".git/x.zip", "._1.zip", ".DS_Store", "a/notes.yaml",
    "crawl.cdx.gz", "load.py",
]  # fmt: skip


def others(folder: Path, source: Source, *names: str) -> list[tuple[str, str]]:
    """The notes of a source over these files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    findings = Findings()
    assert list(list_units(source, findings))
    assert findings.problems == []
    return [(note.path, note.detail) for note in findings.notes if note.what == "other_files"]


@pytest.mark.parametrize(
    ("kind", "own", "other"),
    [
        (TarSource, "0.tar", ["1.tar.lz4", "2.tar.Z", "3.zip", "a/4.rar", "5.tar.part"]),
        (TarSource, "0.tar.gz", ["1.7z", "2.jpg", "3.warc.gz", "4.parquet", "noext"]),
        (ParquetSource, "0.parquet", ["1.arrow", "1.csv", "1.parquet.crdownload", "2.tar", "3.jpg"]),
        (WarcSource, "0.warc.gz", ["0.arc.gz", "1.wacz", "2.warc.bz2", "3.warc.wet.gz", "4.warc.lz4"]),
        (UrlSource, "0.csv", ["1.csv.bz2", "2.xlsx", "3.tar", "4.jsonl.zst", "5.ods"]),
        (HuggingFaceSource, "0.parquet", ["1.arrow", "1.csv", "2.zip", "3.tar", "4.jpg"]),
    ],
)
def test_files_of_other_kinds_are_counted(tmp_path: Path, kind: type, own: str, other: list[str]):
    source = kind(path=str(tmp_path))
    usual = [
        name for name in USUAL if kind is not UrlSource or not name.endswith((".txt", ".json", ".json.gz"))
    ]
    assert others(tmp_path, source, own, *usual) == []
    [(path, detail)] = others(tmp_path, source, *other)
    assert path == str(tmp_path)
    assert detail.startswith("5 files beside the source's own are of other kinds, and not read: ")
    told = detail.partition("read: ")[2]
    assert told.endswith(" and 2 more")
    assert set(told.removesuffix(" and 2 more").split(", ")) < set(other)


def test_a_table_of_a_tar_is_its_own(tmp_path: Path):
    """img2dataset writes both."""
    source = TarSource(path=str(tmp_path))
    assert others(tmp_path, source, "00000.parquet", "00000.tar", "00000_stats.json") == []
    [(_, detail)] = others(tmp_path, source, "00001.parquet")
    assert detail.endswith("read: 00001.parquet")


def test_a_pattern_means_what_it_says(tmp_path: Path):
    assert others(tmp_path, TarSource(path=f"{tmp_path}/*.tar"), "0.tar", "1.zip") == []


def test_an_empty_source_says_what_there_is(tmp_path: Path):
    (tmp_path / "0.tar.lz4").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"other_files: 1 files .* not read: 0\.tar\.lz4"):
        list(list_units(TarSource(path=str(tmp_path))))


def test_what_is_usual_is_not_counted_and_the_first_are_named() -> None:
    others, findings = OtherFiles(), Findings()
    others.take("a/0.tar")
    for key in ("a/0.parquet", "a/0.json", "README", "LICENSE.txt", "sums.md5.gz"):
        others.pass_over(key)
    others.note("/data", findings)
    assert not findings.notes
    for key in ("b/1.parquet", "z.mp4", "y.mp4", "x.zip"):
        others.pass_over(key)
    others.note("/data", findings)
    [note] = findings.notes
    assert (note.what, note.path) == ("other_files", "/data")
    assert note.detail.startswith("4 files beside the source's own are of other kinds")
    assert note.detail.endswith("x.zip, y.mp4, z.mp4 and 1 more")
