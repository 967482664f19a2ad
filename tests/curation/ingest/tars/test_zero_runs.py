"""Zeros in a tar: padding, or members that never came."""

import os
from pathlib import Path

import pytest

from curation.ingest.tars.zero_runs import STRIDE_BYTES, count_zeros, find_magic, is_padding, skip_hole
from curation.tar_headers import BLOCK_BYTES, RECORD_BYTES, tar_header


@pytest.mark.parametrize(
    ("start", "end", "padding"),
    [
        (BLOCK_BYTES, 3 * BLOCK_BYTES, True),  # an end mark that nobody padded
        (BLOCK_BYTES, RECORD_BYTES, True),
        (BLOCK_BYTES, 3 * RECORD_BYTES, False),  # more than a record of any kind
        (RECORD_BYTES - BLOCK_BYTES, 2 * RECORD_BYTES, True),  # the end mark did not fit the record before
        (BLOCK_BYTES, 1 << 20, True),  # a record of `tar -b 2048`
        (BLOCK_BYTES, (1 << 20) + BLOCK_BYTES, False),
    ],
)
def test_padding_fills_a_record_and_no_more(start: int, end: int, padding: bool) -> None:
    assert is_padding(start, end, archive=0) == padding
    assert is_padding(start + 7 * BLOCK_BYTES, end + 7 * BLOCK_BYTES, archive=7 * BLOCK_BYTES) == padding


@pytest.mark.parametrize("num", [0, 1, 511, STRIDE_BYTES - 1])
def test_zeros_are_counted(num: int) -> None:
    assert count_zeros(bytes(num)) == num
    assert count_zeros(bytes(num) + b"x\0") == num
    assert count_zeros(bytes(STRIDE_BYTES)) == STRIDE_BYTES


def test_a_header_may_lie_where_its_word_stands_in_a_block() -> None:
    data = b"ustar".ljust(BLOCK_BYTES, b"\0") + tar_header("a", 0) + bytes(BLOCK_BYTES) + tar_header("b", 0)
    assert find_magic(data) == [BLOCK_BYTES, 3 * BLOCK_BYTES]
    assert find_magic(b"") == []


def test_a_hole_is_skipped_and_its_end_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as out:
        out.seek(1 << 20)
        out.write(b"x" * 4096)
        out.truncate(1 << 21)
    size, handle = 1 << 21, os.open(path, os.O_RDONLY)
    try:
        found = skip_hole(handle, 0, size)
        assert found in (0, 1 << 20)  # 0: this file system knows no holes
        assert skip_hole(handle, 1 << 20, size) == 1 << 20
        assert skip_hole(handle, (1 << 20) + 8192, size) in ((1 << 20) + 8192, size)
    finally:
        os.close(handle)
