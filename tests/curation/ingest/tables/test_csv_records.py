"""Records of CSV: a bad one costs no more than itself."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.ingest.tables.csv_records import MAX_RECORD_LINES, Record, Records
from curation.ingest.tables.text_lines import Lines

FIELDS = st.lists(st.text('ab,"\n ', max_size=5), min_size=2, max_size=2)


def _records(text: str, *, header: tuple[str, ...] = (), url: str | None = None) -> list[Record]:
    return list(Records(Lines(io.BytesIO(text.encode())), ",", header=header, url=url))


@given(rows=st.lists(FIELDS, max_size=5))
def test_what_pythons_writer_writes_is_read(rows: list[list[str]]) -> None:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    found = _records(out.getvalue())
    assert [record.fields for record in found] == rows
    assert all(record.fault is None for record in found)
    data = out.getvalue().encode()
    for record, row in zip(found, rows, strict=True):  # each begins where the one before it ends
        again = next(Records(Lines(io.BytesIO(data), record.offset), ","))
        assert again.fields == row


def test_a_quote_that_is_never_closed_costs_one_line() -> None:
    found = _records('a,b\n"open,1\nc,d\ne,f\n')
    assert [record.fields for record in found] == [["a", "b"], [], ["c", "d"], ["e", "f"]]
    assert found[1].fault
    assert [record.offset for record in found] == [0, 4, 12, 16]


def test_a_quote_that_is_closed_far_below_costs_one_line() -> None:
    header = ("url", "text")
    lines = ['http://a,"one', "http://b,two", 'http://c,three" more', "http://d,four"]
    found = _records("\n".join(lines), header=header, url="url")
    assert [record.fields for record in found] == [
        [], ["http://b", "two"], ["http://c", 'three" more'], ["http://d", "four"]
    ]  # fmt: skip


def test_a_text_of_several_lines_is_one_field() -> None:
    header = ("text", "url")
    found = _records('"one\ntwo",http://a\nthree,http://b\n', header=header, url="url")
    assert [record.fields for record in found] == [["one\ntwo", "http://a"], ["three", "http://b"]]


def test_too_many_lines_are_no_record() -> None:
    found = _records('"' + "x\n" * (MAX_RECORD_LINES + 5) + '"\n')
    assert found[0].fault is not None
    assert found[1].fields == ["x"]


@pytest.mark.parametrize("text", ["", "\n"])
def test_nothing(text: str) -> None:
    assert [record.fields for record in _records(text)] == [[]] * len(text)
