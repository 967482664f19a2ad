"""Configs of sources, what they list, and how listings become parts and are merged."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from curation import storage
from curation.errors import ConfigError, SourceError
from curation.ingest.listing import list_parts
from curation.ingest.refresh import merge_listing
from curation.ingest.rows import ImageRow, rows_table
from curation.ingest.sidecars import StoredFile
from curation.ingest.source_files import list_units
from curation.ingest.sources import FolderSource, Source, TarSource


def test_configs_are_strict():
    adapter = TypeAdapter(Source)
    assert adapter.validate_python({"kind": "tars", "path": "x"}) == TarSource(path="x")
    for bad in (
        {"kind": "zip", "path": "x"},
        {"path": "x"},
        {"kind": "tars", "path": ""},
        {"kind": "folder", "path": "x", "max_member_bytes": 1},
        {"kind": "folder", "path": "x", "sidecars": [".txt"]},
        {"kind": "tars", "path": "x", "max_member_bytes": 0},
    ):
        with pytest.raises(ValidationError):
            adapter.validate_python(bad)


@pytest.mark.parametrize(
    ("pattern", "keys"),
    [
        ("", ["a/s-0.tar", "a/s-1.tar", "a/s-2.tar", "b/s-0.tar", "b/t.tar.gz"]),
        ("/a/s-1.tar", ["s-1.tar"]),
        ("/a/s-{0..1}.tar", ["s-0.tar", "s-1.tar"]),
        ("/a/s-{1,0,1}.tar", ["s-0.tar", "s-1.tar"]),
        ("/{b,a}/s-0.tar", ["a/s-0.tar", "b/s-0.tar"]),
        ("/*/s-[02].tar", ["a/s-0.tar", "a/s-2.tar", "b/s-0.tar"]),
        ("/{a,b}/*.tar", ["a/s-0.tar", "a/s-1.tar", "a/s-2.tar", "b/s-0.tar"]),
    ],
)
def test_tars_of_a_path(tmp_path: Path, pattern: str, keys: list[str], write_tar: Callable[..., Path]):
    for name in ("a/s-0.tar", "a/s-1.tar", "a/s-2.tar", "a/index.json", "b/s-0.tar", "b/t.tar.gz"):
        write_tar(tmp_path / name, {"x.jpg": b"x"})
    units = list(list_units(TarSource(path=f"{tmp_path}{pattern}")))
    assert [u.key for u in units] == keys
    for unit in units:
        assert storage.stat(unit.path).version == unit.version
        assert unit.path.endswith(unit.key)


def test_a_path_with_brackets_that_exists_is_meant(tmp_path: Path, write_tar: Callable[..., Path]):
    write_tar(tmp_path / "s[1].tar", {"x.jpg": b"x"})
    assert [u.key for u in list_units(TarSource(path=str(tmp_path / "s[1].tar")))] == ["s[1].tar"]


@pytest.mark.parametrize("name", ["none", "s-{0..2}.tar", "*.tar", "none/*.tar", "."])
def test_tars_that_are_not_there(tmp_path: Path, name: str):
    (tmp_path / "s-0.txt").write_bytes(b"x")
    with pytest.raises(SourceError):
        list(list_units(TarSource(path=str(tmp_path / name))))


def test_paths_that_cannot_be_meant(tmp_path: Path):
    with pytest.raises(ConfigError, match="braces"):
        list(list_units(TarSource(path=str(tmp_path / "s-{0..2.tar"))))
    for source in (
        TarSource(path="pipe:cat x"),
        FolderSource(path="http://host/x"),
        TarSource(path="ftp://h/x"),
    ):
        with pytest.raises((ConfigError, SourceError)):
            list(list_units(source))


def test_parts_of_tars(tmp_path: Path, write_tar: Callable[..., Path]):
    for number, count in enumerate((3, 0, 4, 1)):
        write_tar(tmp_path / f"{number}.tar", {f"{i}.jpg": b"x" for i in range(count)})
    (tmp_path / "4.tar").write_bytes(b"not a tar")
    source = TarSource(path=str(tmp_path), key_prefix="p/")
    parts = list(list_parts(source, part_rows=3))
    assert [p.table["key"].to_pylist() for p in parts] == [
        ["p/0.tar/0.jpg", "p/0.tar/1.jpg", "p/0.tar/2.jpg"],
        ["p/2.tar/0.jpg", "p/2.tar/1.jpg", "p/2.tar/2.jpg"],
        ["p/2.tar/3.jpg", "p/3.tar/0.jpg"],
    ]
    assert [[(p.path[-5:], p.what) for p in part.problems] for part in parts] == [
        [],
        [],
        [("4.tar", "not_a_tar")],
    ]
    assert [[(n.path[-5:], n.what) for n in part.notes] for part in parts] == [
        [],
        [("1.tar", "empty_archive")],
        [],
    ]
    with ThreadPoolExecutor(2) as pool:
        assert list(list_parts(source, part_rows=3, map_units=pool.map)) == parts


def test_parts_of_nothing_but_problems(tmp_path: Path):
    (tmp_path / "0.tar").write_bytes(b"not a tar")
    (part,) = list_parts(TarSource(path=str(tmp_path)), part_rows=3)
    assert (len(part.table), [p.what for p in part.problems]) == (0, ["not_a_tar"])


def test_parts_of_a_folder(tmp_path: Path):
    for i in range(7):
        (tmp_path / f"{i}.jpg").write_bytes(b"x")
    parts = list(list_parts(FolderSource(path=str(tmp_path)), part_rows=3))
    assert [len(p.table) for p in parts] == [3, 3, 1]
    assert all(p.table[c].num_chunks <= 1 for p in parts for c in p.table.column_names)


def listing(files: dict[str, int], sizes: tuple[int, ...] = (3,)) -> list[pa.Table]:
    """Tables of rows with these keys and versions, in key order, of up to these many rows in turn."""
    rows = [
        ImageRow(k, k, k, 0, 1, str(v), [("txt", StoredFile("t", "t", 0, v))] * (v % 2), None)
        for k, v in sorted(files.items())
    ]
    tables = []
    while rows:
        size = sizes[len(tables) % len(sizes)]
        tables.append(rows_table(rows[:size]))
        rows = rows[size:]
    return tables


def test_a_merge_by_hand():
    old = listing(dict.fromkeys("abcdefghij", 0))
    new = dict.fromkeys("abcdefghij", 0) | {"aa": 0, "zz": 0}
    new["e"] = 1  # changed
    del new["d"], new["j"]  # vanished, the second with its whole part
    merged = list(merge_listing(old, listing(new, (5,)), part_rows=3))
    assert [t["key"].to_pylist() for t in merged] == [list("abc"), list("ef"), list("ghi"), ["aa", "zz"]]
    assert merged[0] is old[0]
    assert merged[2] is old[2]
    assert merged[1]["version"].to_pylist() == ["1", "0"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["a0"], ["a0", "b0", "b1"]),  # both new
        (["a0", "b0"], ["a1", "a2", "b0"]),  # both changed
        (["a0", "b0"], ["a0", "a1", "b0"]),  # one as it was
        (["a0", "b0"], ["a0", "a0", "b0"]),
    ],
)
def test_a_merge_of_a_key_that_comes_twice_loses_no_row_in_silence(before: list[str], after: list[str]):
    old, new = (
        pa.concat_tables(table for key, version in rows for table in listing({key: int(version)}))
        for rows in (before, after)
    )
    with pytest.raises(SourceError, match="one key"):
        list(merge_listing([old], [new], part_rows=3))


FILES = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(0, 3), max_size=20)


@settings(max_examples=100, deadline=None)
@given(before=FILES, after=FILES, sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3))
def test_a_merge_is_the_new_listing_and_keeps_what_it_can(before: dict, after: dict, sizes: list[int]):
    old = listing(before)
    merged = list(merge_listing(old, listing(after, tuple(sizes)), part_rows=4))
    rows = [row for table in merged for row in table.to_pylist()]
    wanted = [row for table in listing(after) for row in table.to_pylist()]
    assert sorted(rows, key=lambda r: r["key"]) == wanted
    same = [t for t in old if all(after.get(k) == before[k] for k in t["key"].to_pylist())]
    assert [t for t in merged if any(t is o for o in old)] == same
    assert all(0 < len(t) <= 4 for t in merged)
    again = list(merge_listing(merged, listing(after), part_rows=4))
    assert len(again) == len(merged)
    assert all(a is b for a, b in zip(again, merged, strict=True))
