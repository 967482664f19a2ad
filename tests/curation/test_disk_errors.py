"""What a file system refuses is told with the path, the need, the room there is, and the remedy."""

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from faults.disks import enlarge, file_size_limit, fill, no_more_files, small_disk
from safetensors.numpy import save_file

from curation import storage
from curation.disk_errors import naming, refusal, sentence_of
from curation.drivers import translated
from curation.errors import ConfigError, ExecutorError
from curation.ingest.problems import Findings
from curation.ingest.rows import read_sample
from curation.ingest.source_files import list_units
from curation.ingest.sources import FolderSource
from curation.ranges import RangeReader

NOISE = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8)  # nothing makes it shorter


def publish(folder: Path) -> None:
    storage.publish_bytes(str(folder / "data"), NOISE.tobytes())


def write_table(folder: Path) -> None:
    storage.write_table(folder / "data", pa.table({"noise": NOISE}))


def write_vectors(folder: Path) -> None:
    storage.write_vectors(folder / "data", NOISE.reshape(-1, 64).view(np.float16))


def copy(folder: Path) -> None:
    """From another file system, to which no hard link leads."""
    other = folder.parent / "other"
    other.write_bytes(NOISE.tobytes())
    storage.link_or_copy(str(other), str(folder / "data"))


def save_with_numpy(folder: Path) -> None:
    with naming(folder / "data"), (folder / "data").open("wb") as out:
        np.lib.format.write_array(out, NOISE)


def save_tensors(folder: Path) -> None:
    with naming(folder / "data"):
        save_file({"noise": NOISE}, folder / "data")


def save_with_torch(folder: Path) -> None:
    with naming(folder / "data"):
        torch.save({"noise": torch.from_numpy(NOISE)}, folder / "data")


WRITERS = [publish, write_table, write_vectors, copy, save_with_numpy, save_tensors, save_with_torch]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_a_full_disk(write: Callable[[Path], None], tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", num_bytes=256 << 10) as disk:
        with pytest.raises(
            ExecutorError, match=f"The disk is full: {disk}/data.*bytes free.*Free some"
        ) as caught:
            write(disk)
        if write in (publish, write_table, write_vectors, copy):
            assert f"room for {len(NOISE):,} bytes" in str(caught.value)
        assert not list(disk.glob(".*.tmp"))
        enlarge(disk, num_bytes=4 << 20)
        write(disk)
        assert (disk / "data").stat().st_size >= len(NOISE)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_a_file_may_not_grow(write: Callable[[Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if write is copy:
        (tmp_path / "other").write_bytes(NOISE.tobytes())
        pytest.skip("on one file system nothing is copied")
    words = (
        "could not be written whole"
        if write in (save_with_numpy, save_with_torch)
        else r"grows longer.*ulimit -f"
    )
    with file_size_limit(64 << 10), pytest.raises(ExecutorError, match=words) as caught:
        write(folder)
    assert str(folder / "data") in str(caught.value)
    write(folder)


def test_no_inode_is_left(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", num_bytes=1 << 20, num_inodes=4) as disk:
        for name in "abc":
            (disk / name).touch()
        with pytest.raises(ExecutorError, match=rf"no inode left: {disk}/d\. Got: 1,0\d\d,\d+ bytes free"):
            storage.publish_bytes(str(disk / "d"), b"x")
        with pytest.raises(ExecutorError, match="no inode left"):  # of folders as well
            storage.publish_bytes(str(disk / "deep" / "file"), b"x")
        enlarge(disk, num_bytes=1 << 20, num_inodes=40)
        storage.publish_bytes(str(disk / "deep" / "file"), b"x")


def test_a_disk_for_reading_alone(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", num_bytes=1 << 20) as disk:
        storage.publish_bytes(str(disk / "there"), b"x")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(ExecutorError, match=rf"read-only: {disk}/data\."):
            publish(disk)
        with pytest.raises(ExecutorError, match=rf"read-only: {disk}/again\."):
            storage.link_or_copy(str(disk / "there"), str(disk / "again"))
        assert storage.read_bytes(str(disk / "there")) == b"x"


def test_too_many_open_files_are_no_fault_of_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    storage.publish_bytes(path, b"x")
    for read in (
        storage.read_bytes,
        storage.sha256_file,
        lambda path: storage.publish_bytes(path + "2", b""),
    ):
        with (
            no_more_files(),
            pytest.raises(ExecutorError, match=r"too many files open: .*file.*ulimit -n"),
        ):
            read(path)
    with no_more_files(), pytest.raises(ExecutorError, match="too many"), storage.open_seekable(path):
        pass


def image_row(path: Path) -> dict[str, Any]:
    return {"path": str(path), "offset": 0, "num_bytes": path.stat().st_size, "sidecars": []}


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_this_process_lacks_is_no_fault_of_an_image_or_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")

    def failing(*_args: Any, **_kw: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pread", failing)
    with RangeReader() as reader, pytest.raises(ExecutorError, match=r"a\.jpg.*again"):
        read_sample(reader, image_row(tmp_path / "a.jpg"))
    for call in ("scandir", "lstat"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            with pytest.raises(ExecutorError, match=f"{tmp_path}"):
                list(list_units(FolderSource(path=str(tmp_path)), Findings()))


def test_more_files_than_may_be_open_cost_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    row = image_row(tmp_path / "a.jpg")
    with RangeReader() as reader:
        with no_more_files(), pytest.raises(ExecutorError, match="too many files open"):
            read_sample(reader, row)
        assert read_sample(reader, row) == b"x"


def test_a_driver_that_may_open_no_more_connections_is_no_fault_of_its_store() -> None:
    def fail(cause: OSError) -> None:
        with translated("s3://bucket/x"):
            raise OSError("Could not connect to the endpoint URL") from cause

    with pytest.raises(ExecutorError, match="too many files open: s3://bucket/x"):
        fail(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    with pytest.raises(OSError, match="Could not connect"):
        fail(OSError(errno.ECONNREFUSED, "refused"))


def test_a_read_that_fails_names_what_was_read(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    storage.publish_bytes(path, b"x")
    for opened in (storage.open_stream, storage.open_seekable):
        with pytest.raises(OSError, match=f"Input/output error: '{path}'"), opened(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "quota"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "input/output error"),
        (OSError("Error writing bytes to file. Detail: [errno 28] No space left on device"), "disk is full"),
        (RuntimeError("write error: Input/output error (os error 5)"), "input/output error"),
        (OSError("39840 requested and 18368 written"), "written whole.*39840 requested and 18368 written"),
        (RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"), "written whole"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/a/b"), r"denied: /a/b\."),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/a/b"), None),
        (ValueError("no such thing"), None),
        (ConfigError("No space left on device"), None),
    ],
)
def test_whoever_says_it(error: Exception, words: str | None, tmp_path: Path) -> None:
    found = refusal(error, tmp_path / "x")
    if words is None:
        assert found is None
    else:
        assert found is not None
        with pytest.raises(ExecutorError, match=words):
            raise found
        assert "/a/b" in str(found) or str(tmp_path / "x") in str(found)
        assert found.remedy


def test_a_name_that_nobody_gave_is_not_told(tmp_path: Path) -> None:
    error = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / ".file.0123.tmp"))
    assert f"{tmp_path}/file." in str(refusal(error, tmp_path / "file"))


def test_filling_a_disk_leaves_what_was_asked(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", num_bytes=1 << 20) as disk:
        fill(disk, but_bytes=64 << 10)
        storage.publish_bytes(str(disk / "small"), b"x" * 1000)
        with pytest.raises(ExecutorError, match="full"):
            publish(disk)


def test_a_sentence_for_every_error() -> None:
    ring = OSError(errno.ELOOP, "raw", "/somewhere/x")
    assert sentence_of(ring).startswith("A link leads round in a ring: /somewhere/x. Remove the link")
    assert sentence_of(OSError(errno.ENOENT, "No such file", "/x")) == "No such file: /x."
    assert sentence_of(OSError(errno.ENOSPC, "raw", "/x")).startswith("The disk is full: /x")
    assert sentence_of(OSError("only words")) == "only words."
    assert sentence_of(ConfigError("of ours")) == "of ours."
