"""Compressed tars: unpacked, they give what the plain tar gives; cut, damaged or bombs, they are named."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from curation import storage
from curation.ingest.rows import FoundRows
from curation.ingest.sources import TarSource
from curation.ingest.staging import Place
from curation.ingest.tars import unpack
from curation.ingest.tars.tar_index import index_tar
from curation.ingest.tars.unpack import unpack_tar

MEMBERS = {f"{i:03}.{ext}": f"{i} {ext}".encode() * 4000 for i in range(9) for ext in ("jpg", "json")}
ZSTD = pa.Codec("zstd")


def zstd(data: bytes) -> bytes:
    return ZSTD.compress(data, asbytes=True)


def unpacked(path: Path, out: Path, **settings: int) -> FoundRows:
    out.mkdir()
    source = TarSource(path=str(path), **settings)
    return unpack_tar(storage.stat(str(path)), source, Place(out, "folder"))


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        (".tar.gz", lambda d: gzip.compress(d[:20_000]) + gzip.compress(d[20_000:])),  # as pigz and cat do
        (".tar.bz2", bz2.compress),
        (".tar.xz", lzma.compress),
        (".txz", lambda d: lzma.compress(d[:20_000]) + bytes(8) + lzma.compress(d[20_000:]) + b"else"),
        (".tar.zst", lambda d: zstd(d[:20_000]) + zstd(d[20_000:])),
        (".tgz", bytes),  # not compressed, whatever its name says
    ],
)
def test_rows_are_those_of_the_plain_tar(
    tmp_path: Path, write_tar: Callable[..., Path], suffix: str, pack: Callable[[bytes], bytes]
):
    plain = write_tar(tmp_path / "a.tar", MEMBERS)
    packed = tmp_path / f"a{suffix}"
    packed.write_bytes(pack(plain.read_bytes()))
    found = unpacked(packed, tmp_path / "out")
    assert (tmp_path / "out" / "000000.tar").read_bytes() == plain.read_bytes()
    index = index_tar(storage.stat(str(plain)), TarSource(path=str(plain)))
    assert (found.problems, found.notes, found.num_again) == ([], [], 0)
    for row, expected in zip(found.table.to_pylist(), index.table.to_pylist(), strict=True):
        assert row["key"] == expected["key"].replace("a.tar", packed.name)
        assert row["uri"] == expected["uri"].replace(str(plain), str(packed))
        assert row["path"] == "folder/000000.tar"
        assert row["version"] == storage.stat(str(packed)).version
        assert [s["path"] for s in row["sidecars"]] == ["folder/000000.tar"]
        assert [row[n] for n in ("offset", "num_bytes")] == [expected[n] for n in ("offset", "num_bytes")]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd])
def test_what_ends_early_is_kept_so_far(
    tmp_path: Path, write_tar: Callable[..., Path], pack: Callable[[bytes], bytes]
):
    import random

    noise = {f"{i:03}.jpg": random.Random(i).randbytes(200_000) for i in range(12)}
    packed = tmp_path / "a.tar.gz"
    data = pack(write_tar(tmp_path / "a.tar", noise).read_bytes())
    packed.write_bytes(data[: len(data) * 2 // 3])
    found = unpacked(packed, tmp_path / "out")
    assert [problem.what for problem in found.problems] == ["truncated"]
    whole = [row for row in found.table.to_pylist() if row["reason"] is None]
    assert 3 <= len(whole) <= 8
    plain = (tmp_path / "out" / "000000.tar").read_bytes()
    for row in whole:
        assert plain[row["offset"] :][: row["num_bytes"]] == noise[row["key"].rpartition("/")[2]]
    assert {row["reason"] for row in found.table.to_pylist()} <= {None, "truncated"}


def test_a_damaged_stream_is_named(tmp_path: Path, write_tar: Callable[..., Path]):
    data = bytearray(gzip.compress(write_tar(tmp_path / "a.tar", MEMBERS).read_bytes()))
    data[40:60] = bytes(20)
    (tmp_path / "a.tar.gz").write_bytes(data)
    found = unpacked(tmp_path / "a.tar.gz", tmp_path / "out")
    assert [problem.what for problem in found.problems][:1] == ["corrupt"]


def test_a_bomb_is_cut_off(tmp_path: Path, write_tar: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
    bomb = {"a.jpg": b"a", "b.jpg": bytes(40 << 20)}
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(write_tar(tmp_path / "a.tar", bomb).read_bytes()))
    found = unpacked(packed, tmp_path / "by-bytes", max_unpacked_bytes=4 << 20)
    assert [problem.what for problem in found.problems] == ["unpacks_too_large"]
    assert [row["reason"] for row in found.table.to_pylist()] == [None, "truncated"]
    assert (tmp_path / "by-bytes" / "000000.tar").stat().st_size <= 4 << 20
    monkeypatch.setattr(unpack, "_FREE_BYTES", 1 << 20)
    found = unpacked(packed, tmp_path / "by-ratio")
    assert [problem.what for problem in found.problems] == ["unpacks_too_large"]
    assert (tmp_path / "by-ratio" / "000000.tar").stat().st_size <= max(1 << 20, 100 * packed.stat().st_size)


def test_a_source_that_fails_is_asked_again(
    tmp_path: Path, write_tar: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    packed = tmp_path / "a.tar.gz"
    packed.write_bytes(gzip.compress(write_tar(tmp_path / "a.tar", MEMBERS).read_bytes()))
    tries = []

    def fails(path: str) -> None:
        tries.append(path)
        raise OSError("no route to host")

    monkeypatch.setattr(unpack.storage, "open_stream", fails)
    found = unpacked(packed, tmp_path / "out")
    assert (len(tries), found.table.num_rows, found.num_again) == (3, 0, 1)
    assert [problem.what for problem in found.problems] == ["unreadable"]


def _with_dictionary(packed: bytes, size: int) -> bytes:
    """An xz file whose first block claims a dictionary of `size` (as its format counts), checksum and all."""
    length = (packed[12] + 1) * 4
    header = bytearray(packed[12 : 12 + length - 4])
    assert header[2:4] == b"\x21\x01", "LZMA2 and its one byte of properties"
    header[4] = size
    checksum = zlib.crc32(header).to_bytes(4, "little")
    return packed[:12] + bytes(header) + checksum + packed[12 + length :]


def test_xz_that_claims_a_huge_dictionary_is_not_unpacked(tmp_path: Path, write_tar: Callable[..., Path]):
    plain = write_tar(tmp_path / "a.tar", MEMBERS).read_bytes()
    packed = tmp_path / "a.tar.xz"
    packed.write_bytes(_with_dictionary(lzma.compress(plain), 37))  # 1.5 GiB
    found = unpacked(packed, tmp_path / "out")
    assert [problem.what for problem in found.problems] == ["unpacks_too_large"]
    assert "memory" in found.problems[0].detail
    assert found.table.num_rows == 0
    packed.write_bytes(lzma.compress(plain, preset=9))
    assert not unpacked(packed, tmp_path / "large").problems
