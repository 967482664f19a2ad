"""Headers of tars, against `tarfile`."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import ConfigError
from curation.tar_headers import (
    BLOCK_BYTES,
    MAX_NAME_BYTES,
    RECORD_BYTES,
    TarHeader,
    has_checksum,
    member_bytes,
    padded,
    parse_header,
    tar_bytes,
    tar_header,
    text_of,
)

NAMES = st.text("abcdefghij-_.0123456789/é", min_size=1, max_size=40).filter(
    lambda name: not name.startswith("/") and not name.endswith("/")
)


@given(name=NAMES, num_bytes=st.integers(0, 8**11 - 1))
def test_what_is_written_is_what_tarfile_writes_and_is_read_again(name: str, num_bytes: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = num_bytes
    block = tar_header(name, num_bytes)
    assert block == member.tobuf(tarfile.USTAR_FORMAT)
    assert parse_header(block) == TarHeader(name, b"0", num_bytes)


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_what_others_write_is_read(layout: int) -> None:
    folder = tarfile.TarInfo("f")
    folder.type = tarfile.DIRTYPE
    assert parse_header(folder.tobuf(layout)).kind == b"5"
    link = tarfile.TarInfo("l")
    link.type, link.linkname = tarfile.LNKTYPE, "a/b"
    block = link.tobuf(layout)
    assert parse_header(block).kind == b"1"
    assert text_of(block[157:257]) == "a/b"


def test_a_long_name_has_a_prefix_and_a_large_size_base_256() -> None:
    name = "/".join(["folder" * 5] * 5)
    assert parse_header(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT)).name == name
    large = tarfile.TarInfo("a")
    large.size = 8**11
    assert parse_header(large.tobuf(tarfile.GNU_FORMAT)).num_bytes == 8**11


def test_an_old_folder_is_told_by_its_slash_and_odd_bytes_are_kept() -> None:
    block = bytearray(tar_header("x/", 0))
    block[156:157] = b"\0"
    assert parse_header(_summed(block)).kind == b"5"
    block[0] = 0xFF
    assert parse_header(_summed(block)).name == "\udcff/"


def test_signed_sums_are_taken_too() -> None:
    block = bytearray(tar_header("é", 1))
    signed = int(block[148:154], 8) - 2 * 256
    block[148:154] = b"%06o" % signed
    assert has_checksum(bytes(block))


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (b"", "checksum"),
        (bytes(BLOCK_BYTES), "checksum"),
        (tar_header("a", 1)[:-1], "checksum"),
        (b"b" + tar_header("a", 1)[1:], "checksum"),
        (tar_header("a", 1)[:148] + b"zzzzzzzz" + tar_header("a", 1)[156:], "checksum"),
    ],
)
def test_what_is_no_header_is_said_to_be_none(block: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_header(block)


def test_a_negative_size_is_none() -> None:
    block = bytearray(tar_header("a", 1))
    block[124:136] = b"\xff" * 12
    with pytest.raises(ValueError, match="negative"):
        parse_header(_summed(block))


@pytest.mark.parametrize(("name", "num_bytes"), [("a" * (MAX_NAME_BYTES + 1), 0), ("a", 8**11)])
def test_what_does_not_fit_is_refused(name: str, num_bytes: int) -> None:
    with pytest.raises(ConfigError, match="does not fit a tar header"):
        tar_header(name, num_bytes)


@pytest.mark.parametrize("sizes", [[], [0], [1, 511, 512, 513], [9000, 700]])
def test_sizes_are_those_of_tarfile(sizes: list[int]) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, size in enumerate(sizes):
            member = tarfile.TarInfo(str(number))
            member.size = size
            tar.addfile(member, io.BytesIO(bytes(size)))
    assert len(out.getvalue()) == tar_bytes(sum(map(member_bytes, sizes)))
    assert len(out.getvalue()) % RECORD_BYTES == 0
    assert [padded(n) for n in (0, 1, 512, 513)] == [0, 512, 512, 1024]


def _summed(block: bytearray) -> bytes:
    """The block with its checksum."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
