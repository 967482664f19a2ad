"""What the type of a column says of its values."""

import pyarrow as pa
import pytest

from curation.ingest.tables.column_types import (
    has_free_bytes,
    holds_pictures,
    is_bytes,
    is_free_bytes,
    plain_type,
)

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize(
    ("kind", "of_any_size", "of_a_size"),
    [
        (pa.binary(), True, False),
        (pa.large_binary(), True, False),
        (pa.binary_view(), True, False),
        (pa.dictionary(pa.int8(), pa.binary()), True, False),
        (pa.run_end_encoded(pa.int32(), pa.binary()), True, False),
        (pa.binary(16), False, True),
        (pa.string(), False, False),
        (pa.list_(pa.binary()), False, False),
    ],
)
def test_bytes_of_any_size_and_of_one(kind: pa.DataType, of_any_size: bool, of_a_size: bool) -> None:
    assert is_free_bytes(kind) == of_any_size
    assert is_bytes(kind) == (of_any_size or of_a_size)


def test_what_values_are_packed_in_is_no_matter() -> None:
    assert plain_type(pa.dictionary(pa.int8(), pa.run_end_encoded(pa.int32(), pa.string()))) == pa.string()


def test_bytes_are_found_at_any_depth() -> None:
    assert has_free_bytes(pa.list_(pa.struct([("a", pa.int8()), ("b", pa.list_(pa.binary()))])))
    assert not has_free_bytes(pa.list_(pa.struct([("a", pa.int8()), ("b", pa.binary(3))])))


@pytest.mark.parametrize("kind", [PICTURE, pa.list_(PICTURE), pa.list_(pa.list_(PICTURE))])
def test_pictures_and_lists_of_them(kind: pa.DataType) -> None:
    assert holds_pictures(kind)


@pytest.mark.parametrize(
    "kind",
    [
        pa.binary(),
        pa.struct([("bytes", pa.string()), ("path", pa.string())]),
        pa.struct([("bytes", pa.binary()), ("path", pa.string()), ("more", pa.int8())]),
        pa.map_(pa.string(), PICTURE),
    ],
)
def test_what_are_no_pictures(kind: pa.DataType) -> None:
    assert not holds_pictures(kind)
