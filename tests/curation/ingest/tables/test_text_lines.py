"""Lines of texts in whichever Unicode they are."""

import codecs
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.ingest.tables.text_lines import (
    MAX_LINE_BYTES,
    Lines,
    decode_text,
    encoding_of,
    is_utf8,
    open_text,
    without_odd_bytes,
)

MARKS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@pytest.mark.parametrize("encoding", MARKS)
@pytest.mark.parametrize("marked", [True, False])
@given(text=st.text("abü\n漢", max_size=20))
def test_a_text_is_the_same_in_every_unicode(encoding: str, marked: bool, text: str) -> None:
    text = "http" + text  # ASCII letters tell it where there is no mark
    data = (MARKS[encoding] if marked else b"") + text.encode(encoding)
    assert encoding_of(data) == (encoding, len(MARKS[encoding]) if marked else 0)
    assert decode_text(data) == text
    stream = open_text(io.BytesIO(data))
    assert "".join(Lines(stream)) == text


def test_a_line_is_found_by_its_place() -> None:
    stream = open_text(io.BytesIO("one\nzwö\ndrei\n".encode("utf-16")))
    lines = Lines(stream)
    assert next(lines) == "one\n"
    assert next(lines) == "zwö\n"
    place = lines.offset
    assert list(Lines(stream, place)) == ["drei\n"]
    assert list(Lines(stream, 4)) == ["zwö\n", "drei\n"]  # backwards, too


def test_lines_of_old_macs_end() -> None:
    assert list(Lines(open_text(io.BytesIO(b"one\rtwo\r")))) == ["one\n", "two\n"]


def test_what_cannot_be_decoded_costs_its_line() -> None:
    data = "good\n".encode("utf-16-le") + b"\x00\xd8" + "bad\ngood\n".encode("utf-16-le")
    first, second, third = Lines(open_text(io.BytesIO(codecs.BOM_UTF16_LE + data)))
    assert (is_utf8(first), is_utf8(second), is_utf8(third)) == (True, False, True)
    assert without_odd_bytes(second) == "\ufffdbad\n"
    assert without_odd_bytes(first) == first


def test_a_long_line_is_cut_and_the_next_one_found() -> None:
    long, after = Lines(io.BytesIO(b"x" * (2 * MAX_LINE_BYTES + 5) + b"\nafter\n"))
    assert len(long) == MAX_LINE_BYTES
    assert after == "after\n"
