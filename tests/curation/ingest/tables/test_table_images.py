"""Which column of a table is the image, and what its rows become."""

import pyarrow as pa
import pytest

from curation import storage
from curation.errors import ConfigError
from curation.ingest.problems import Findings
from curation.ingest.sources import ParquetSource
from curation.ingest.tables.inflation import InflatesError
from curation.ingest.tables.table_images import Columns, TableRows, choose_columns, reading_problem

INFO = storage.FileInfo("/data/x.parquet", "x.parquet", 100, "v")
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def _choose(schema: dict[str, pa.DataType], **settings: object) -> Columns:
    source = ParquetSource(path="/data", **settings)
    return choose_columns(pa.schema(list(schema.items())), source, INFO)


@pytest.mark.parametrize(
    ("schema", "image", "field"),
    [
        ({"image": PICTURE, "label": pa.int8()}, "image", "bytes"),
        ({"jpg": pa.binary(), "png": pa.binary()}, "jpg", None),
        ({"whatever": pa.binary(), "sha": pa.binary(32)}, "whatever", None),
        ({"sha": pa.binary(32)}, "sha", None),
    ],
)
def test_the_column_that_must_be_meant(schema: dict[str, pa.DataType], image: str, field: str | None) -> None:
    found = _choose(schema)
    assert (found.image, found.field) == (image, field)


def test_others_travel_and_pictures_do_not() -> None:
    found = _choose({"image": PICTURE, "mask": PICTURE, "raw": pa.binary(), "text": pa.string()})
    assert found.others == ("raw", "text")
    assert found.pictures == ("mask",)
    assert found.maybe_pictures == {"raw"}
    assert found.names == ["image", "raw", "text"]
    assert _choose({"image": PICTURE, "k": pa.string(), "t": pa.string()}, key="k", columns=("t",)).names == [
        "image", "k", "t"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "settings", "said"),
    [
        ({"a": pa.binary(), "b": pa.binary()}, {}, "could be told.*image: a or b"),
        ({"a": pa.string()}, {}, "no column of image bytes\\..*lists and text"),
        ({"a": pa.binary()}, {"image": "b"}, "named 'b'.*image: a"),
        ({"a": pa.binary()}, {"key": "k"}, "no column 'k'"),
        ({"a": pa.struct([("x", pa.binary()), ("y", pa.binary())])}, {}, "image: a.x or a.y"),
    ],
)
def test_what_cannot_be_told_is_named(
    schema: dict[str, pa.DataType], settings: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        _choose(schema, **settings)


def test_columns_of_one_name_are_refused() -> None:
    schema = pa.schema([("a", pa.binary()), ("a", pa.binary())])
    with pytest.raises(ConfigError, match=r"columns of one name.*'a' once"):
        choose_columns(schema, ParquetSource(path="/data"), INFO)


def test_rows_become_images_and_what_is_odd_is_told_at_the_end() -> None:
    source, findings = ParquetSource(path="/data", key="k"), Findings()
    batch = pa.record_batch(
        {
            "image": pa.array(
                [{"bytes": b"x", "path": None}, {"bytes": None, "path": "a.jpg"}, None], PICTURE
            ),
            "k": ["one", "one", None],
            "raw": pa.array([b"\0", b"text", None], pa.binary()),
        }
    )
    rows = TableRows(INFO, source, choose_columns(batch.schema, source, INFO), findings)
    first, second, third = rows.images(batch, 0)
    rows.end()
    assert (first.key, first.data, first.reason) == ("x.parquet/one", b"x", None)
    assert (second.key, second.data, second.reason) == ("x.parquet/one#2", None, "missing_image")
    assert third.key == "x.parquet/00000002"
    assert dict(first.sidecars) == {"json": b'{"k":"one"}'}
    assert dict(second.sidecars) == {"json": b'{"k":"one","raw":"text"}'}
    assert [note.what for note in findings.notes] == ["duplicate_name", "no_key", "no_text", "paths_alone"]


def test_a_range_has_the_keys_of_the_whole_file() -> None:
    source, findings = ParquetSource(path="/data", key="k"), Findings()
    batch = pa.record_batch({"image": pa.array([b"x", b"y"]), "k": ["a", "a"]})
    rows = TableRows(INFO, source, choose_columns(batch.schema, source, INFO), findings)
    rows.pass_over([batch])
    assert [image.key for image in rows.images(batch, 2)] == ["x.parquet/a#3", "x.parquet/a#4"]
    rows.end()
    assert [note.detail[:6] for note in findings.notes] == ["2 rows"]


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (pa.ArrowInvalid("bad"), "corrupt"),
        (OSError("bad data"), "corrupt"),
        (OSError(5, "input/output error"), "unreadable"),
        (InflatesError("a bomb"), "unpacks_too_large"),
        (pa.ArrowMemoryError("no memory"), "unreadable"),
    ],
)
def test_what_ends_a_table_is_damage_or_the_disk(error: Exception, what: str) -> None:
    problem = reading_problem(INFO, error, 7)
    assert problem.what == what
    assert problem.detail.startswith("rows from 7 on: ")
