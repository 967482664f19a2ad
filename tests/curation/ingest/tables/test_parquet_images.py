"""Parquet files with image bytes, whole or cut into ranges, and what of them must be refused."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peak_memory import risen_mb

from curation import storage
from curation.errors import ConfigError
from curation.ingest.problems import Findings
from curation.ingest.sources import ParquetSource
from curation.ingest.staging import StagedImage
from curation.ingest.tables.parquet_images import cut_parquet, parquet_images

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def images_of(path: Path, findings: Findings | None = None, **settings: Any) -> list[StagedImage]:
    source = ParquetSource(path=str(path), **settings)
    findings = findings or Findings()
    return list(parquet_images(storage.stat(str(path)), source, first=0, stop=None, findings=findings))


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_a_table_by_hand(tmp_path: Path):
    columns = {
        "caption": ["one", None, "dré"],
        "image": pa.array([b"1", None, b""], pa.large_binary()),
        "score": [0.5, math.nan, 2.0],
        "thumbnail": [b"\xff", b"\x89PNG", b"\0"],
    }
    found = images_of(write(tmp_path / "a.parquet", columns), key_prefix="p/")
    assert [(i.key, i.data, i.reason) for i in found] == [
        ("p/a.parquet/00000000", b"1", None),
        ("p/a.parquet/00000001", None, "missing_image"),
        ("p/a.parquet/00000002", b"", None),  # describe calls it empty
    ]
    assert [json.loads(i.sidecars["json"]) for i in found] == [
        {"caption": "one", "score": 0.5},
        {"caption": None, "score": None},
        {"caption": "dré", "score": 2.0},
    ]
    assert found[2].uri == f"{tmp_path / 'a.parquet'}#00000002"


def test_hugging_face_s_struct(tmp_path: Path):
    values = [{"bytes": b"1", "path": "/etc/passwd"}, {"bytes": None, "path": "/etc/passwd"}, None]
    path = write(tmp_path / "a.parquet", {"image": pa.array(values, STRUCT), "label": [3, 4, 5]})
    found = images_of(path)
    assert [(i.data, i.reason) for i in found] == [
        (b"1", None),
        (None, "missing_image"),
        (None, "missing_image"),
    ]
    assert found[0].sidecars == {"json": b'{"label":3}'}
    assert [i.data for i in images_of(path, image="image.bytes")] == [b"1", None, None]


def test_keys_and_columns_that_are_chosen(tmp_path: Path):
    columns = {"id": ["x", "x", None, "00000002"], "pic": [b"1", b"2", b"3", b"4"], "a": [1, 2, 3, 4]}
    path = write(tmp_path / "a.parquet", columns)
    found = images_of(path, key="id", columns=["id"])
    names = ["x", "x#2", "00000002", "00000002#2"]
    assert [i.key for i in found] == [f"a.parquet/{name}" for name in names]
    assert found[0].sidecars == {"json": b'{"id":"x"}'}
    assert [i.sidecars for i in images_of(path, columns=[])] == [{}] * 4
    findings = Findings()
    assert [i.sidecars for i in images_of(path, findings, max_sidecar_bytes=15)][2:] == [{}] * 2
    assert {note.what for note in findings.notes} == {"long_sidecar"}


def test_keys_that_are_none_or_come_again_are_counted(tmp_path: Path):
    columns = {"id": ["x", "x", None, "00000002", ""], "pic": [b"1", b"2", b"3", b"4", b"5"]}
    path = write(tmp_path / "a.parquet", columns, row_group_size=2)
    findings = Findings()
    names = [image.key.rpartition("/")[2] for image in images_of(path, findings, key="id")]
    assert names == ["x", "x#2", "00000002", "00000002#2", "00000004"]
    assert [(note.what, note.detail[:6]) for note in findings.notes] == [
        ("duplicate_name", "2 rows"),
        ("no_key", "2 rows"),
    ]
    # A range counts its own.
    source, findings = ParquetSource(path=str(path), key="id"), Findings()
    assert (
        len(list(parquet_images(storage.stat(str(path)), source, first=4, stop=None, findings=findings))) == 1
    )
    assert [(note.what, note.detail[:6]) for note in findings.notes] == [("no_key", "1 rows")]
    findings = Findings()
    images_of(path, findings)
    assert findings.notes == []


def test_a_table_without_rows_is_noted(tmp_path: Path):
    findings = Findings()
    assert images_of(write(tmp_path / "a.parquet", {"image": pa.array([], pa.binary())}), findings) == []
    assert ([note.what for note in findings.notes], findings.problems) == (["empty_table"], [])


@pytest.mark.parametrize(
    ("columns", "settings", "what"),
    [
        ({"url": ["u"]}, {}, "url (string)"),
        ({"a": [b"1"], "b": [b"2"]}, {}, "a (binary), b (binary)"),  # which of the two nobody knows
        ({"image": ["text"]}, {}, "image (string)"),
        ({"image": [b"1"]}, {"image": "picture"}, "'picture'"),
        ({"image": [b"1"]}, {"key": "name"}, "'name'"),
        ({"image": [b"1"]}, {"columns": ["label"]}, "'label'"),
    ],
)
def test_columns_that_are_not_there(tmp_path: Path, columns: dict, settings: dict, what: str):
    with pytest.raises(ConfigError, match=r"a\.parquet") as caught:
        images_of(write(tmp_path / "a.parquet", columns), **settings)
    assert what in str(caught.value)


def test_two_columns_of_one_name(tmp_path: Path):
    table = pa.Table.from_arrays([pa.array([b"1"]), pa.array([b"2"])], names=["image", "image"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="one name"):
        images_of(tmp_path / "a.parquet")


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 400), min_size=1, max_size=40),
    group=st.integers(1, 12),
    unit_bytes=st.integers(1, 4000),
    keyed=st.booleans(),
)
def test_ranges_give_what_the_whole_file_gives(
    sizes: list[int], group: int, unit_bytes: int, keyed: bool, tmp_path_factory: pytest.TempPathFactory
):
    path = tmp_path_factory.mktemp("p") / "a.parquet"
    columns = {"image": [bytes(n) for n in sizes], "id": [n % 3 for n in sizes]}
    write(path, columns, row_group_size=group)
    info, source = storage.stat(str(path)), ParquetSource(path=str(path), key="id" if keyed else None)
    cuts = cut_parquet(info, unit_bytes)
    assert [start for start, _ in cuts[1:]] == [stop for _, stop in cuts[:-1]]
    assert (cuts[0][0], cuts[-1][1]) == (0, len(sizes))
    findings = Findings()
    pieces = [
        image
        for first, stop in cuts
        for image in parquet_images(info, source, first=first, stop=stop, findings=findings)
    ]
    assert pieces == images_of(path, key=source.key)
    assert not findings.problems


def test_a_damaged_page_keeps_the_rows_before_it(tmp_path: Path):
    rng_bytes = [bytes([i]) * 3000 for i in range(40)]
    path = write(tmp_path / "a.parquet", {"image": rng_bytes}, row_group_size=10, compression="zstd")
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(2).column(0)
        start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 40] = bytes(40)
    path.write_bytes(data)
    findings = Findings()
    assert [i.data for i in images_of(path, findings)] == rng_bytes[:20]
    (problem,) = findings.problems
    assert (problem.what, problem.path) == ("corrupt", str(path))
    assert "rows from 20 on:" in problem.detail


def test_the_memory_of_a_large_row_group_is_bounded(tmp_path: Path):
    rng = __import__("numpy").random.default_rng(0)
    picture = rng.bytes(1 << 20)
    path = write(tmp_path / "a.parquet", {"image": [picture] * 96}, use_dictionary=False, compression="none")
    pool = pa.default_memory_pool()
    before, peak, count = pool.bytes_allocated(), 0, 0
    source = ParquetSource(path=str(path))
    info = storage.stat(str(path))
    for image in parquet_images(info, source, first=0, stop=None, findings=Findings()):
        assert image.data is not None
        count += 1
        peak = max(peak, pool.bytes_allocated() - before)
    assert count == 96
    assert peak < 72 << 20


def odd_text(*values: bytes) -> pa.StringArray:
    """A column of strings whose bytes are taken as they are."""
    plain = pa.array(values, pa.binary())
    return pa.StringArray.from_buffers(len(plain), *plain.buffers()[1:])


def test_an_odd_value_costs_its_row_no_more_than_itself(tmp_path: Path):
    columns = {
        "image": [b"1", b"2", b"3", b"4"],
        "id": odd_text(b"a", b"b\xff", b"c", b"d"),
        "caption": odd_text(b"one", b"two", b"thr\xffee", b"four"),
        "day": pa.array([0, 1, 2, 110_000_000], pa.date32()),  # the year 303,139
    }
    findings = Findings()
    found = images_of(write(tmp_path / "a.parquet", columns), findings, key="id")
    assert [(i.key, i.data) for i in found] == [
        ("a.parquet/a", b"1"),
        ("a.parquet/b%FF", b"2"),
        ("a.parquet/c", b"3"),
        ("a.parquet/d", b"4"),
    ]
    captions = [json.loads(i.sidecars["json"])["caption"] for i in found[:3]]
    assert captions == ["one", "two", "thr\udcffee"]
    assert found[3].sidecars == {}
    assert not findings.problems
    assert [(note.what, note.detail.partition(":")[0]) for note in findings.notes] == [
        ("odd_sidecar", "row 3")
    ]


def test_what_arrow_cannot_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "a.parquet", {"image": [b"1"]}, compression="none")
    data = path.read_bytes()
    # The codec of the column's chunk, in the footer: 3 is LZO, which nobody can read.
    assert data.count(b"\x18\x05image\x15\x00") == 1
    path.write_bytes(data.replace(b"\x18\x05image\x15\x00", b"\x18\x05image\x15\x06"))
    findings = Findings()
    assert not images_of(path, findings)
    assert [problem.what for problem in findings.problems] == ["corrupt"]

    def fail(*_args: object, **_kwargs: object) -> None:
        raise pa.ArrowNotImplementedError("of nobody")

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", fail)
    assert not images_of(path, findings)
    assert [problem.what for problem in findings.problems] == ["corrupt"] * 2


def test_a_value_that_all_rows_share_is_held_once(tmp_path: Path):
    image = bytes(1 << 20)
    table = pa.table({"image": pa.array([image] * 500, pa.binary())})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, dictionary_pagesize_limit=4 << 20)
    assert path.stat().st_size < 1 << 20
    del table
    before, source = pa.total_allocated_bytes(), ParquetSource(path=str(path))
    peak = num_rows = 0
    for found in parquet_images(storage.stat(str(path)), source, first=0, stop=None, findings=Findings()):
        assert found.data == image
        peak, num_rows = max(peak, pa.total_allocated_bytes() - before), num_rows + 1
    assert num_rows == 500
    assert peak < 16 << 20


def test_a_dictionary_of_images(tmp_path: Path):
    images = pa.array([b"1", b"2", None, b"1"]).dictionary_encode()
    path = write(tmp_path / "a.parquet", {"image": images, "label": [0, 1, 2, 3]})
    found = [(i.data, i.reason) for i in images_of(path)]
    assert found == [(b"1", None), (b"2", None), (None, "missing_image"), (b"1", None)]


PACKED = {
    "view": lambda images: images.cast(pa.binary_view()),
    "large": lambda images: images.cast(pa.large_binary()),
    "dictionary": lambda images: images.dictionary_encode(),
    "large dictionary": lambda images: images.cast(pa.large_binary()).dictionary_encode(),
}


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("in_struct", [False, True])
def test_images_however_they_are_packed(tmp_path: Path, name: str, in_struct: bool):
    images = PACKED[name](pa.array([b"1", b"2", None, b"1"]))
    if in_struct:
        images = pa.StructArray.from_arrays([images, pa.array(["a", "b", None, "d"])], ["bytes", "path"])
    path = write(tmp_path / "a.parquet", {"image": images, "label": [0, 1, 2, 3]})
    findings = Findings()
    found = [(i.data, i.reason) for i in images_of(path, findings)]
    assert found == [(b"1", None), (b"2", None), (None, "missing_image"), (b"1", None)]
    assert not findings.notes


def test_paths_without_bytes_are_named(tmp_path: Path):
    values = [{"bytes": None, "path": f"/data/{i}.jpg"} for i in range(3)] + [{"bytes": b"1", "path": "x"}]
    path = write(tmp_path / "a.parquet", {"image": pa.array(values, STRUCT), "label": [3, 4, 5, 6]})
    findings = Findings()
    assert [i.reason for i in images_of(path, findings)] == ["missing_image"] * 3 + [None]
    [note] = findings.notes
    assert note.what == "paths_alone"
    assert "3 rows of column 'image' have a path, such as '/data/0.jpg', and no bytes" in note.detail


OTHERS = {
    "string_view": pa.array(["x", None], pa.string_view()),
    "list_view": pa.array([[1, 2], None], pa.list_view(pa.int64())),
    "large_list": pa.array([[1, 2], None], pa.large_list(pa.int64())),
    "fixed": pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2)),
    "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(4, dtype=np.float32).reshape(2, 2)),
    "words": pa.array(["x", "y"]).dictionary_encode(),
    "lists of words": pa.array([["x", "y", None], None], pa.list_(pa.string())),
    "lists of views": pa.array([["x", "y", None], None], pa.list_(pa.string_view())),
    "fixed lists of words": pa.array([["x", "y"], None], pa.list_(pa.string(), 2)),
    "maps": pa.array([[("a", "x")], None], pa.map_(pa.string(), pa.string())),
    "structs": pa.array([{"a": {"b": ["x", None]}, "c": 1}, {"a": None, "c": None}]),
    "lists of structs": pa.array([[{"a": "x"}, None], []]),
    "uuids": pa.array([b"0" * 16, None], pa.uuid()),
}


@pytest.mark.parametrize("store_schema", [True, False])
def test_columns_of_any_type_travel_along(tmp_path: Path, store_schema: bool):
    for name, column in OTHERS.items():
        path = write(
            tmp_path / "a.parquet", {"image": [b"1", b"2"], "other": column}, store_schema=store_schema
        )
        found = [json.loads(i.sidecars["json"])["other"] for i in images_of(path)]
        expected = json.loads(json.dumps(column.to_pylist(), default=str))
        if name == "uuids" and not store_schema:
            expected = [None, None] if found == [None, None] else expected
        assert found == expected, name


BOMB_TEXT, BOMB_ROWS = "x" * 100_000, 4096
BOMBS = {
    "a column": pa.array([BOMB_TEXT] * BOMB_ROWS),
    "a dictionary": pa.array([BOMB_TEXT] * BOMB_ROWS).dictionary_encode(),
    "a list in one row": pa.array([[BOMB_TEXT] * BOMB_ROWS] + [[]] * 15, pa.list_(pa.string())),
    "a struct of lists": pa.array([{"a": [BOMB_TEXT] * BOMB_ROWS}] + [{"a": []}] * 15),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("is_key", [False, True])
def test_one_text_repeated_is_not_held_for_every_row(tmp_path: Path, name: str, is_key: bool):
    for file, column in (("small", BOMBS[name][:0]), ("bomb", BOMBS[name])):
        columns = {"image": [b"1"] * len(column), "text": column}
        pq.write_table(pa.table(columns), tmp_path / f"{file}.parquet", compression="zstd")
    assert (tmp_path / "bomb.parquet").stat().st_size < 200_000
    setup = f"""
        from curation import storage
        from curation.ingest.tables.parquet_images import parquet_images
        from curation.ingest.problems import Findings
        from curation.ingest.sources import ParquetSource
        SETTINGS = {{"key": "text", "columns": ()}} if {is_key} else {{}}
    """
    work = """
        findings = Findings()
        source = ParquetSource(path=path, **SETTINGS)
        images = parquet_images(storage.stat(path), source, first=0, stop=None, findings=findings)
        num_rows = sum(1 for _ in images)
        assert not findings.problems and num_rows in (0, 16, 4096), (findings.problems, num_rows)
        assert len(findings.notes) < 30
    """
    small, bomb = tmp_path / "small.parquet", tmp_path / "bomb.parquet"
    assert risen_mb(setup, work, harmless=small, tried=bomb) < 100


def test_a_long_key_is_the_row_s_number(tmp_path: Path):
    path = write(tmp_path / "a.parquet", {"image": [b"1", b"2"], "id": ["k" * 1025, "k" * 1024]})
    findings = Findings()
    assert [i.key for i in images_of(path, findings, key="id")] == [
        "a.parquet/00000000",
        f"a.parquet/{'k' * 1024}",
    ]
    assert [note.what for note in findings.notes] == ["long_key"]


def test_notes_of_many_rows_are_counted(tmp_path: Path):
    path = write(tmp_path / "a.parquet", {"image": [b"1"] * 1000, "text": ["x" * 50] * 1000})
    findings = Findings()
    assert len(images_of(path, findings, max_sidecar_bytes=20)) == 1000
    assert [note.detail for note in findings.notes][-1] == "980 more of this kind"
    assert len(findings.notes) == 21


BYTES_AS_TEXT = {
    "bytes": (pa.array([b"one", "zwölf".encode()]), ["one", "zwölf"]),
    "large bytes": (pa.array([b"one", None], pa.large_binary()), ["one", None]),
    "a dictionary": (pa.array([b"one", b"one"]).dictionary_encode(), ["one", "one"]),
    "a list": (pa.array([[b"one", None], None], pa.list_(pa.binary())), [["one", None], None]),
    "a struct": (
        pa.array([{"t": b"x", "n": 1}, {"t": b"\x89P", "n": 2}]),
        [{"t": "x", "n": 1}, {"t": None, "n": 2}],
    ),
}


@pytest.mark.parametrize("name", BYTES_AS_TEXT)
@pytest.mark.parametrize("asked", [None, ("caption",)])
def test_bytes_that_are_utf_8_are_text(tmp_path: Path, name: str, asked: tuple[str, ...] | None):
    column, expected = BYTES_AS_TEXT[name]
    path = write(tmp_path / "a.parquet", {"image": [b"1", b"2"], "caption": column})
    found = images_of(path, columns=asked)
    assert [json.loads(i.sidecars["json"]) for i in found] == [{"caption": value} for value in expected]


def test_columns_that_are_left_out_are_noted_once(tmp_path: Path):
    columns = {
        "image": [b"1", b"2"],
        "mask": [b"\x89PNG", b"\xff\xd8"],
        "raw": [b"\0\1", b"text"],  # zeros and ones are UTF-8, and no text
        "conditioning": pa.array([{"bytes": b"x", "path": "a"}] * 2, STRUCT),
        "views": pa.array([[{"bytes": b"x", "path": "a"}]] * 2, pa.list_(STRUCT)),
        "label": [3, 4],
    }
    findings = Findings()
    found = images_of(write(tmp_path / "a.parquet", columns), findings)
    assert [json.loads(i.sidecars["json"]) for i in found] == [{"label": 3}, {"raw": "text", "label": 4}]
    assert [note.what for note in findings.notes] == ["no_text"] * 4
    assert [note.detail.split("'")[1] for note in findings.notes] == ["conditioning", "mask", "raw", "views"]
    path = write(tmp_path / "b.parquet", columns)
    assert [json.loads(i.sidecars["json"]) for i in images_of(path, columns=["mask"])] == [{"mask": None}] * 2


def test_keys_that_are_bytes(tmp_path: Path):
    columns = {"image": [b"1", b"2", b"3"], "id": [b"a", "ü".encode(), b"\xff\0"]}
    found = images_of(write(tmp_path / "a.parquet", columns), key="id")
    assert [i.key for i in found] == ["a.parquet/a", "a.parquet/ü", "a.parquet/ff00"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1, 2]], pa.list_(pa.uint8())),
        pa.array([[b"x"]], pa.list_(pa.binary())),
        pa.array(["aGVsbG8="]),
        pa.array([None], pa.null()),
        pa.array([{"path": "a.jpg"}]),
    ],
)
@pytest.mark.parametrize("named", [{}, {"image": "image"}, {"image": "image.x"}])
def test_where_no_column_holds_bytes_none_is_to_be_named(
    tmp_path: Path, column: pa.Array, named: dict[str, str]
):
    path = write(tmp_path / "a.parquet", {"image": column, "label": [1]})
    with pytest.raises(ConfigError, match="Write the images' bytes into a column of binary type") as caught:
        images_of(path, **named)
    assert "Name it" not in str(caught.value)


def test_columns_that_may_be_named_are_named(tmp_path: Path):
    columns = {
        "a": pa.array([b"1"]),
        "b": pa.array([{"bytes": b"2", "large": b"3", "n": 1}]),
        "c": pa.array([{"jpg": b"4"}]),
        "n": [1],
    }
    path = write(tmp_path / "a.parquet", columns)
    for named in ({}, {"image": "x"}):
        with pytest.raises(ConfigError, match=r"image: a or b or b\.bytes or b\.large or c\.jpg"):
            images_of(path, **named)
    assert [image.data for image in images_of(path, image="c.jpg")] == [b"4"]


def test_bytes_of_a_fixed_size_are_an_image_where_there_are_no_others(tmp_path: Path):
    fixed = pa.array([b"abc", None], pa.binary(3))
    (first, second) = images_of(write(tmp_path / "a.parquet", {"photo": fixed, "n": [1, 2]}))
    assert (first.data, second.reason) == (b"abc", "missing_image")
    (named, _) = images_of(write(tmp_path / "b.parquet", {"photo": fixed, "m": fixed}), image="m")
    assert named.data == b"abc"
    path = write(tmp_path / "c.parquet", {"sha": fixed, "photo": [b"1", b"2"], "n": [1, 2]})
    assert [image.data for image in images_of(path)] == [b"1", b"2"]
    assert json.loads(images_of(path)[0].sidecars["json"]) == {"sha": None, "n": 1}


def test_a_moment_in_an_unknown_time_zone_is_given_in_utc(tmp_path: Path):
    columns = {
        "image": [b"1", b"2", b"3"],
        "when": pa.array([0, None, 1 << 62], pa.timestamp("us", "Mars/Olympus")),
        "caption": ["a", "b", "c"],
    }
    findings = Findings()
    first, second, third = images_of(write(tmp_path / "a.parquet", columns), findings)
    assert json.loads(first.sidecars["json"]) == {"when": "1970-01-01 00:00:00+00:00", "caption": "a"}
    assert json.loads(second.sidecars["json"]) == {"when": None, "caption": "b"}
    assert not third.sidecars  # a year that Python has no value for
    (note,) = findings.notes
    assert "zoneinfo" not in note.detail
