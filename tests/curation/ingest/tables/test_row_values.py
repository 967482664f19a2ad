"""Cells as Python's values, and rows as the json beside an image."""

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.ingest.problems import Findings
from curation.ingest.tables.row_values import (
    MAX_NAME_CHARS,
    encode_row,
    has_no_name,
    holds_bytes,
    name_of,
    read_values,
    row_sidecars,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text("abü\n", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", min_size=1), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abc", min_size=1), VALUES, max_size=3))
def test_plain_values_come_back_from_the_json(values: dict[str, Any]) -> None:
    assert json.loads(encode_row(values, max_bytes=1 << 20)) == values


def test_what_json_has_no_form_for_becomes_null_or_text() -> None:
    values = {"nan": float("nan"), "bytes": b"\0", "half": "\ud800", "set": range(2)}
    assert json.loads(encode_row(values, max_bytes=1000)) == {
        "nan": None, "bytes": None, "half": "\ud800", "set": "range(0, 2)"
    }  # fmt: skip


def test_credentials_do_not_travel() -> None:
    data = encode_row({"url": "https://u:secret@host/x", "text": "see https://u:p@host"}, max_bytes=1000)
    assert json.loads(data) == {"url": "https://***@host/x", "text": "see https://u:p@host"}


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"a": "x" * 100}, "long_sidecar"),
        ({"a": ValueError("no such year")}, "odd_sidecar"),
        ({"http://u:a@h": 1, "http://u:b@h": 2}, "odd_sidecar"),
    ],
)
def test_what_cannot_travel_is_left_out_and_noted(values: dict[str, Any], what: str) -> None:
    findings = Findings()
    assert row_sidecars(values, ("f", "row 3"), max_bytes=50, findings=findings) == {}
    [note] = findings.notes
    assert (note.what, note.path) == (what, "f")
    assert note.detail.startswith("row 3: ")


def test_nesting_without_end_is_refused_at_a_fixed_depth() -> None:
    deep: Any = 1
    for _ in range(70):
        deep = [deep]
    findings = Findings()
    assert row_sidecars({"a": deep}, ("f", "row 0"), max_bytes=1000, findings=findings) == {}
    assert "nested more than 64 deep" in findings.notes[0].detail
    assert row_sidecars(None, ("f", "row 0"), max_bytes=1000, findings=findings) == {}


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("a/b", "a/b"),
        (7, "7"),
        (b"\x01\xff", "01ff"),
        (None, "00000005"),
        ("", "00000005"),
        (ValueError(), "00000005"),
        ("x" * (MAX_NAME_CHARS + 1), "00000005"),
        ("http://u:p@h/x", "http://***@h/x"),
        ("\udcff", "%FF"),
    ],
)
def test_names_of_rows(value: Any, name: str) -> None:
    findings = Findings()
    assert name_of(value, 5, place="f", findings=findings) == name
    assert [note.what for note in findings.notes] == ["long_key"] * (
        name == "00000005" and not has_no_name(value)
    )


def test_odd_cells_cost_no_more_than_themselves() -> None:
    text = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\3\0\0\0"), pa.py_buffer(b"\xffab")]
    )
    assert read_values(text) == ["\udcff", "ab"]
    year = pa.array([0, 10**17], pa.timestamp("s"))
    first, second = read_values(year)
    assert first.year == 1970
    assert isinstance(second, Exception)


def test_bytes_that_are_text_are_text() -> None:
    assert read_values(pa.array([b"abc", b"\xff", b"a\0b", None])) == ["abc", b"\xff", b"a\0b", None]
    nested = pa.array([{"a": [b"x"]}], pa.struct([("a", pa.list_(pa.binary()))]))
    assert read_values(nested) == [{"a": ["x"]}]
    assert holds_bytes([{"a": (b"",)}])
    assert not holds_bytes([{"a": ("",)}])


def test_an_entry_of_a_dictionary_is_one_object() -> None:
    words = pa.array(["long text", None, "long text"]).dictionary_encode()
    first, none, again = read_values(words)
    assert first is again
    assert none is None
    lists = pa.ListArray.from_arrays([0, 2, 3], words)
    assert read_values(lists) == [["long text", None], ["long text"]]
