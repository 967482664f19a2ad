"""Local files that are none, and disks that do not answer: no read waits for ever."""

import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from curation import local_reads, storage
from curation.errors import SourceError
from curation.ingest.problems import Findings
from curation.ingest.rows import has_changed, read_sample, read_sidecars
from curation.ingest.source_files import list_units
from curation.ingest.sources import FolderSource, TarSource
from curation.ingest.stage_unit import stage_unit
from curation.ingest.staging import Place
from curation.ingest.tars.tar_index import index_tar
from curation.ingest.units import cut_units
from curation.local_reads import disk_of, in_time
from curation.ranges import RangeReader
from pipelines.models.precomputed import PrecomputedVectors


@pytest.fixture
def hung_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which every call to a file hangs until the test is over."""
    folder, over = tmp_path / "hung", threading.Event()
    folder.mkdir()
    calls = {name: getattr(os, name) for name in ("open", "stat", "lstat", "scandir")}

    def hanging(name: str) -> Any:
        def call(path: Any, *arguments: Any, **named: Any) -> Any:
            if isinstance(path, str | Path) and str(path).startswith(f"{folder}/"):
                over.wait()
            return calls[name](path, *arguments, **named)

        return call

    (folder / "in").mkdir()
    (folder / "in/0.jpg").write_bytes(b"x")
    (folder / "in/0.tar.gz").write_bytes(b"x")
    monkeypatch.setattr(local_reads, "DEADLINE_S", 0.2)
    monkeypatch.setattr(local_reads, "disk_of", lambda path: str(path)[: len(str(folder))])
    monkeypatch.setattr(local_reads, "_hung", {})
    for name in calls:
        monkeypatch.setattr(os, name, hanging(name))
    yield folder
    over.set()


@pytest.fixture
def odd_files(tmp_path: Path) -> list[Path]:
    os.mkfifo(tmp_path / "pipe")
    return [tmp_path / "pipe", Path("/dev/zero"), tmp_path]


def test_what_is_no_regular_file_is_refused(odd_files: list[Path]):
    for path in odd_files:
        with RangeReader() as reader, pytest.raises(OSError, match=r"regular|directory") as failed:
            reader.read(str(path), 0, 1)
        assert has_changed(failed.value)
        for opened in (storage.open_stream, storage.open_seekable):
            with pytest.raises(OSError, match=r"regular|directory"), opened(str(path)):
                pass
        with pytest.raises(OSError, match=r"regular|directory"):
            storage.read_bytes(str(path), 0, 1)


def test_vectors_in_a_pipe_are_refused(odd_files: list[Path]):
    for path in odd_files:
        with pytest.raises(SourceError, match=r"regular|directory"):
            PrecomputedVectors(str(path))


def test_a_stream_reads_and_seeks(tmp_path: Path):
    data = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(data)
    with storage.open_stream(str(tmp_path / "file")) as stream:
        assert stream.read(10) == data[:10]
        assert stream.seek(-5, os.SEEK_END) == len(data) - 5
        assert stream.read() == data[-5:]
    with storage.open_seekable(str(tmp_path / "file")) as stream:
        assert stream.read() == data
        assert (stream.seek(3), stream.seek(4, os.SEEK_CUR), stream.tell()) == (3, 7, 7)
        assert stream.read(300_000) == data[7:300_007]


def test_a_call_has_its_answer_or_its_error(tmp_path: Path):
    assert in_time(tmp_path, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        in_time(tmp_path, lambda: 1 // 0)
    assert disk_of("/") == "/"
    assert disk_of("/proc/self") == "/proc"


def test_a_disk_that_does_not_answer_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local_reads, "DEADLINE_S", 0.05)
    monkeypatch.setattr(local_reads, "_hung", {})
    monkeypatch.setattr(local_reads, "disk_of", lambda path: str(path)[:2])
    over, asked = threading.Event(), []

    def hang() -> None:
        asked.append(1)
        over.wait()

    for _ in range(7):
        with pytest.raises(TimeoutError):
            in_time("/a/x", hang)
    assert len(asked) == local_reads.MAX_HUNG
    assert in_time("/b/x", lambda: 1) == 1  # another disk
    over.set()
    for _ in range(200):  # it is back, as soon as one of them has ended
        if not local_reads._hung:
            break
        threading.Event().wait(0.01)
    assert in_time("/a/x", lambda: 2) == 2


def test_a_call_that_gets_on_may_take_its_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local_reads, "DEADLINE_S", 0.1)
    monkeypatch.setattr(local_reads, "_hung", {})
    steps, over = [], threading.Event()

    def work(num: int) -> int:
        for step in range(num):
            steps.append(step)
            threading.Event().wait(0.02)
        return len(steps)

    assert in_time("/", lambda: work(15), progress=lambda: len(steps)) == 15
    with pytest.raises(TimeoutError):
        in_time("/", over.wait, progress=lambda: len(steps))
    over.set()


def test_a_tar_that_hangs_midway_keeps_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local_reads, "DEADLINE_S", 0.2)
    monkeypatch.setattr(local_reads, "_hung", {})
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in "abcd":
            tar.addfile(tarfile.TarInfo(f"{name}.jpg"))
    over, pread = threading.Event(), os.pread

    def hanging(handle: int, num_bytes: int, offset: int) -> bytes:
        if offset >= 1024:
            over.wait()
        return pread(handle, num_bytes, offset)

    monkeypatch.setattr(os, "pread", hanging)
    found = index_tar(storage.stat(str(tmp_path / "a.tar")), TarSource(path=str(tmp_path / "a.tar")))
    over.set()
    assert found.table["key"].to_pylist() == ["a.tar/a.jpg", "a.tar/b.jpg"]
    assert [p.what for p in found.problems] == ["unreadable"]


def test_sources_on_a_hung_disk_are_unread(hung_disk: Path):
    for source in (FolderSource(path=f"{hung_disk}/in"), TarSource(path=f"{hung_disk}/in/*.tar")):
        findings = Findings()
        assert list(list_units(source, findings)) == []
        assert [p.what for p in findings.problems] == ["unreadable"]


def test_a_link_to_a_hung_disk_costs_itself(hung_disk: Path, tmp_path: Path):
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "z.jpg"):
        (tmp_path / "in" / name).write_bytes(b"x")
    (tmp_path / "in/disk").symlink_to(hung_disk / "in")
    findings = Findings()
    assert [f.key for f in list_units(FolderSource(path=f"{tmp_path}/in"), findings)] == ["a.jpg", "z.jpg"]
    assert [(p.path, p.what) for p in findings.problems] == [(f"{tmp_path}/in/disk", "unreadable")]


def test_images_and_captions_on_a_hung_disk_are_unreadable(hung_disk: Path):
    caption = {"name": "txt", "path": f"{hung_disk}/in/0.txt", "offset": 0, "num_bytes": 1}
    row = {"path": f"{hung_disk}/in/0.jpg", "offset": 0, "num_bytes": 1, "sidecars": [caption]}
    lost: list[tuple[str, OSError]] = []
    with RangeReader() as reader:
        with pytest.raises(TimeoutError) as failed:
            read_sample(reader, row)
        assert not has_changed(failed.value)
        assert read_sidecars(reader, row, lost=lost) == {}
    assert [path for path, _ in lost] == [caption["path"]]


def test_a_unit_that_is_a_pipe_by_now_is_a_problem(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tar.gz").write_bytes(b"x")
    source = TarSource(path=str(tmp_path / "in"))
    [unit] = cut_units(source)
    (tmp_path / "in/a.tar.gz").unlink()
    os.mkfifo(tmp_path / "in/a.tar.gz")
    (tmp_path / "out").mkdir()
    staged = stage_unit(source, unit, Place(tmp_path / "out", "."), before=None)
    assert [p.what for p in staged.problems] == ["changed"]


def test_a_file_that_is_longer_than_it_was_has_changed(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(b"12345")
    for size in (4, 6):
        row = {"path": str(tmp_path / "a.jpg"), "offset": 0, "num_bytes": size}
        with RangeReader() as reader, pytest.raises(OSError, match=r"bytes|ends at") as failed:
            read_sample(reader, row)
        assert has_changed(failed.value)
