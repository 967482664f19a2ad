"""Folders and tars on an object store give the rows that they give on a disk."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import s3fs

from curation import storage
from curation.errors import SourceError
from curation.ingest.listing import list_parts
from curation.ingest.rows import read_sample, read_sidecars
from curation.ingest.source_files import list_units
from curation.ingest.sources import FolderSource, Source, TarSource
from curation.ranges import RangeReader

FILES = ["a.jpg", "a.txt", "a/b.jpg", "a/b.json", "a/c.d/e.png", "a-1.jpg", "ö ü+%25.jpg", "z"]


def rows_of(source: Source) -> list[dict]:
    """All rows of a source that has nothing wrong."""
    parts = list(list_parts(source, part_rows=3))
    assert not [p for part in parts for p in part.problems]
    return [row for part in parts for row in part.table.to_pylist()]


def placeless(rows: list[dict]) -> list[dict]:
    """Rows without what names the place of the bytes."""
    kept = []
    for row in rows:
        sidecars = [{k: v for k, v in s.items() if k != "path"} for s in row["sidecars"]]
        kept.append(
            {k: v for k, v in row.items() if k not in ("uri", "path", "version")} | {"sidecars": sidecars}
        )
    return kept


def contents(rows: list[dict]) -> list[tuple[bytes, dict[str, bytes]]]:
    """The bytes of every row and of its sidecars."""
    with RangeReader() as reader:
        return [(read_sample(reader, row), read_sidecars(reader, row)) for row in rows]


def test_a_folder(s3, tmp_path: Path):
    root = tmp_path / "folder"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"bytes of " + name.encode())
    url = s3.upload(root, "some/prefix")
    local, remote = (rows_of(FolderSource(path=str(p))) for p in (root, url))
    assert len(local) == len(FILES) - 2
    assert placeless(remote) == placeless(local)
    assert contents(remote) == contents(local)
    assert remote[0]["uri"].startswith("s3://pool/some/prefix/")
    again = rows_of(FolderSource(path=url))
    assert again == remote


def test_names_that_only_a_store_can_have(s3):
    keys = ["a::b.jpg", "x", "x/y.jpg", "x.jpg", "z::/c.jpg"]
    for key in keys:
        s3fs.S3FileSystem().pipe_file(f"{s3.bucket}/odd/{key}", key.encode())
    root = f"s3://{s3.bucket}/odd"
    assert [file.key for file in storage.list_files(root)] == [
        "a::b.jpg",
        "x",
        "x/y.jpg",
        "x.jpg",
        "z::/c.jpg",
    ]
    rows = rows_of(FolderSource(path=root))
    assert sorted(row["key"] for row in rows) == sorted(keys)
    assert [data.decode() for data, _ in contents(rows)] == [row["key"] for row in rows]
    assert storage.stat(f"{root}/a::b.jpg").num_bytes == 8
    assert [file.key for file in storage.list_files(f"{root}/z::")] == ["c.jpg"]


def test_tars(s3, tmp_path: Path, write_tar: Callable[..., Path]):
    root = tmp_path / "tars"
    for shard in range(3):
        members = {
            f"{i:03}.{ext}": f"{shard} {i} {ext}".encode() * 100 for i in range(4) for ext in ("jpg", "json")
        }
        write_tar(root / f"s-{shard}.tar", members)
    url = s3.upload(root)
    local = rows_of(TarSource(path=str(root)))
    remote = rows_of(TarSource(path=url))
    assert placeless(remote) == placeless(local)
    assert contents(remote) == contents(local)
    assert len({row["version"] for row in remote}) == 3
    assert rows_of(TarSource(path=f"{url}/s-{{0..2}}.tar")) == remote
    assert rows_of(TarSource(path=f"{url}/s-[0-2].tar")) == remote
    assert [row["key"] for row in rows_of(TarSource(path=f"{url}/s-1.tar"))] == [
        f"s-1.tar/{i:03}.jpg" for i in range(4)
    ]


def test_a_tar_is_read_once_and_in_order(
    s3, tmp_path: Path, write_tar: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    tar = write_tar(tmp_path / "tars" / "a.tar", {f"{i:03}.jpg": bytes(50_000) for i in range(40)})
    url = s3.upload(tar.parent)
    ranges = []
    fetch = s3fs.S3File._fetch_range

    def record(self: s3fs.S3File, start: int, end: int) -> bytes:
        ranges.append((start, end))
        return fetch(self, start, end)

    monkeypatch.setattr(s3fs.S3File, "_fetch_range", record)
    assert len(rows_of(TarSource(path=url))) == 40
    assert all(end <= start for (_, end), (start, _) in pairwise(ranges))
    assert 1 <= len(ranges) <= 2


def test_what_is_not_there(s3):
    with pytest.raises(SourceError):
        list(list_units(FolderSource(path=f"s3://{s3.bucket}/none")))
    for name in ("none.tar", "s-{0..1}.tar", "*.tar"):
        with pytest.raises(SourceError):
            list(list_units(TarSource(path=f"s3://{s3.bucket}/{name}")))


def test_a_part_is_published_once(s3):
    path = f"s3://{s3.bucket}/run/part"
    storage.publish_bytes(path, b"first")
    storage.publish_bytes(path, b"a late twin")
    assert storage.read_bytes(path) == b"first"
    storage.publish_bytes(path, b"second", replace=True)
    assert storage.read_bytes(path, 2, 3) == b"con"


def test_zeros_a_pattern_of_folders_and_a_gap(s3, tmp_path: Path, write_tar: Callable[..., Path]):
    """What is told of tars on a disk is told of them here."""
    pictures = {f"{i}.jpg": bytes([i + 1]) * 30_208 for i in range(4)}
    data = write_tar(tmp_path / "t/a/b/s-0-of-2.tar", pictures).read_bytes()
    (tmp_path / "t/a/b/s-0-of-2.tar").write_bytes(data[:30_720] + bytes(61_440) + data[92_160:])
    (tmp_path / "t/1.zip").write_bytes(b"x")
    url = s3.upload(tmp_path / "t", "gaps")
    for path in (f"{url}/**/*.tar", url):
        parts = list(list_parts(TarSource(path=path), part_rows=9))
        assert [row["key"][-5:] for part in parts for row in part.table.to_pylist()] == ["0.jpg", "3.jpg"]
        assert [(p.what, p.offset) for part in parts for p in part.problems] == [("zeros", 30_720)]
        told = {note.what for part in parts for note in part.notes}
        assert told == {"missing_files", *(["other_files"] if path == url else [])}
