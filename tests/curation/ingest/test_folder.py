"""A folder as rows: keys, sidecars, order, and that nothing is lost."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation import storage
from curation.errors import SourceError
from curation.ingest import rows
from curation.ingest.folder import folder_rows
from curation.ingest.problems import Findings
from curation.ingest.rows import read_sample, read_sidecars
from curation.ingest.sidecars import stem
from curation.ingest.sources import FolderSource
from curation.ranges import RangeReader
from curation.schema import IMAGES


def write_files(root: Path, names: list[str]) -> None:
    """Files whose bytes are their names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def rows_of(root: Path, **options: object) -> list[dict]:
    """All rows of a folder."""
    tables = list(folder_rows(FolderSource(path=str(root), **options), 1000, Findings()))
    assert all(t.schema.equals(IMAGES, check_metadata=True) for t in tables)
    return [row for table in tables for row in table.to_pylist()]


def sidecar_names(row: dict) -> list[str]:
    return [s["name"] for s in row["sidecars"]]


def test_rows_of_a_hand_made_folder(tmp_path: Path):
    write_files(
        tmp_path,
        [
            "a.jpg",
            "a.txt",
            "a.json",
            "ab.jpg",
            "a b.jpg",
            "b/c.PNG",
            "b/c.seg.json",
            "b/d.txt",
            "noext",
            ".hidden",
        ],
    )
    rows = rows_of(tmp_path, key_prefix="web/")
    assert [(r["key"], sidecar_names(r)) for r in rows] == [
        ("web/.hidden", []),
        ("web/a b.jpg", []),
        ("web/a.jpg", ["json", "txt"]),
        ("web/ab.jpg", []),
        ("web/b/c.PNG", ["seg.json"]),
        ("web/b/d.txt", []),  # no image beside it: a file like any other, which describe will refuse
        ("web/noext", []),
    ]
    first = rows[2]
    assert first["uri"] == first["path"] == str(tmp_path / "a.jpg")
    assert (first["offset"], first["num_bytes"], first["reason"]) == (0, 5, None)
    assert first["version"] == storage.stat(str(tmp_path / "a.jpg")).version
    with RangeReader() as reader:
        assert read_sample(reader, first) == b"a.jpg"
        assert read_sidecars(reader, first) == {"json": b"a.json", "txt": b"a.txt"}


def test_a_read_that_fails_once_is_tried_again(monkeypatch):
    monkeypatch.setattr(rows, "RETRY_WAITS_S", (0.0, 0.0))
    answers = [OSError("stutters"), OSError("stutters"), b"bytes"]

    class Stutters(RangeReader):
        def read(self, *_: object) -> bytes:
            answer = answers.pop(0)
            if isinstance(answer, OSError):
                raise answer
            return answer

    row = {"path": "x", "offset": 0, "num_bytes": 5}
    assert read_sample(Stutters(), row) == b"bytes"
    answers += [FileNotFoundError("gone")]
    with pytest.raises(FileNotFoundError):
        read_sample(Stutters(), row)
    assert not answers


def test_two_images_of_a_stem_both_take_its_sidecar(tmp_path: Path):
    write_files(tmp_path, ["a.jpg", "a.png", "a.json", "a.jpg.txt", "v.1.jpg", "v.2.jpg", "v.2.txt"])
    assert [(r["key"], sidecar_names(r)) for r in rows_of(tmp_path)] == [
        ("a.jpg", ["jpg.txt", "json"]),
        ("a.png", ["jpg.txt", "json"]),
        ("v.1.jpg", []),
        ("v.2.jpg", ["txt"]),
    ]


def test_sidecars_across_what_sorts_between(tmp_path: Path):
    write_files(tmp_path, ["a", "a-1.jpg", "a.txt", "b.bmp", "b.d/x.jpg", "b.d/x.txt", "b.txt"])
    rows = {r["key"]: sidecar_names(r) for r in rows_of(tmp_path)}
    assert rows == {"a": ["txt"], "a-1.jpg": [], "b.bmp": ["txt"], "b.d/x.jpg": ["txt"]}


def test_a_large_sidecar_is_a_file_of_its_own(tmp_path: Path):
    write_files(tmp_path, ["a.jpg", "a.txt"])
    rows = rows_of(tmp_path, max_sidecar_bytes=4)
    assert [(r["key"], sidecar_names(r)) for r in rows] == [("a.jpg", []), ("a.txt", [])]
    assert len(rows_of(tmp_path, sidecars=())) == 2


def test_a_name_that_is_not_utf8_is_a_row(tmp_path: Path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(b"x")
    (row,) = rows_of(tmp_path)
    assert (row["key"], row["reason"]) == ("caf%E9.jpg", "name_not_utf8")


def test_what_cannot_be_listed_says_so(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"x")
    for path, got in (("none", "nothing there"), ("file", "a file")):
        with pytest.raises(SourceError, match=got):
            rows_of(tmp_path / path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no files"):
        rows_of(tmp_path / "empty")


NAMES = st.text("ab.-", min_size=1, max_size=4).filter(lambda n: set(n) != {"."})
TREES = st.sets(
    st.builds(
        lambda folders, name, ext: "/".join([*(f"{f.lstrip('.')}_" for f in folders), name + ext]),
        st.lists(NAMES, max_size=2),
        NAMES,
        st.sampled_from(["", ".jpg", ".png", ".txt", ".json"]),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=TREES, max_rows=st.integers(1, 7))
def test_every_file_is_a_row_or_a_sidecar_of_its_stem(tmp_path: Path, names: set[str], max_rows: int):
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    write_files(root, sorted(names))
    tables = list(folder_rows(FolderSource(path=str(root)), max_rows, Findings()))
    assert all(len(t) == max_rows for t in tables[:-1])
    rows = [row for table in tables for row in table.to_pylist()]
    keys = [row["key"] for row in rows]
    carried = {s["path"] for row in rows for s in row["sidecars"]}
    assert len(set(keys)) == len(keys)
    assert set(keys) | {str(Path(p).relative_to(root)) for p in carried} == names
    assert not set(keys) & {str(Path(p).relative_to(root)) for p in carried}
    for row in rows:
        for sidecar in row["sidecars"]:
            assert sidecar["path"] == f"{root}/{stem(row['key'])}.{sidecar['name']}"
    # The independent reading of the rule: a text beside an image of the same stem is never left alone.
    images = {stem(n) for n in names if not n.endswith((".txt", ".json")) or stem(n) == n}
    assert not [k for k in keys if k.endswith((".txt", ".json")) and stem(k) != k and stem(k) in images]
    if not any("." in n.split("/")[-1][:-4] or "." in n.rpartition("/")[0] or "." not in n for n in names):
        assert keys == sorted(keys, key=lambda k: k.split("/"))


def test_the_sidecars_of_one_image_have_a_limit_together(tmp_path: Path):
    write_files(tmp_path, ["a.jpg", *(f"a.{i:03d}.txt" for i in range(300))])
    findings = Findings()
    [table] = folder_rows(FolderSource(path=str(tmp_path)), 1000, findings)
    [row] = table.to_pylist()
    assert sidecar_names(row) == [f"{i:03d}.txt" for i in range(256)]
    [note] = findings.notes
    assert (note.what, note.detail.partition(":")[0]) == (
        "long_sidecar",
        "44 sidecars are left out, the first 'a.256.txt'",
    )
