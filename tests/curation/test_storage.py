"""Files are whole or absent, listed in key order, read by ranges, and damage is found."""

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import botocore.exceptions
import fsspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import storage
from curation.errors import ConfigError, ExecutorError, IntegrityError, SourceError
from curation.ranges import RangeReader

FDS = Path("/proc/self/fd")  # of this process: every file that it has open


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder of the file system, and one of fsspec's in-memory object store."""
    if request.param == "local":
        yield str(tmp_path)
        return
    name = f"/{uuid.uuid4().hex}"
    yield f"memory:/{name}"
    fs = fsspec.filesystem("memory")
    if fs.exists(name):
        fs.rm(name, recursive=True)


def test_publish_keeps_or_replaces(root: str, tmp_path: Path) -> None:
    path = storage.join(root, "deep", "file")
    assert storage.publish_bytes(path, b"first")
    assert not storage.publish_bytes(path, b"twin")
    assert storage.read_bytes(path) == b"first"
    assert storage.publish_bytes(path, b"second", replace=True)
    assert storage.read_bytes(path) == b"second"
    for replace, expected in ((False, b"second"), (True, b"third")):
        temp = tmp_path / "temp"
        temp.write_bytes(b"third")
        assert storage.publish_file(temp, path, replace=replace) == replace
        assert storage.read_bytes(path) == expected
        assert temp.exists() != replace
    assert [info.key for info in storage.list_files(storage.join(root, "deep"))] == ["file"]


def test_a_failed_publish_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    storage.publish_bytes(str(path), b"old")
    for call in ("fsync", "replace"):
        with monkeypatch.context() as patch:

            def fail(*_args: object, **_kwargs: object) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr(os if call == "fsync" else Path, call, fail)
            with pytest.raises(ExecutorError, match=f"The disk is full: {path}"):
                storage.publish_bytes(str(path), b"new", replace=True)
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]  # no temporary names either


def test_one_of_many_twins_wins_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    texts = [bytes([65 + i]) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=storage.publish_bytes, args=(path, text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert storage.read_bytes(path) in texts
    assert len(list(tmp_path.iterdir())) == 1


def test_listing_is_in_key_order_and_knows_sizes(root: str) -> None:
    keys = ["b", "a/z", "a/b/c", "a-1", "a.b", "Z", "ä", "a/é"]
    for key in keys:
        storage.publish_bytes(storage.join(root, key), key.encode())
    found = list(storage.list_files(root))
    assert [info.key for info in found] == ["Z", "a/b/c", "a/z", "a/é", "a-1", "a.b", "b", "ä"]
    for info in found:
        assert storage.read_bytes(info.path) == info.key.encode()
        assert info.num_bytes == len(info.key.encode())
        # fsspec's memory store tells its times in two forms.
        assert storage.stat(info.path).version == info.version or root.startswith("memory")
    assert [info.key for info in storage.list_files(root, deep=False)] == ["Z", "a-1", "a.b", "b", "ä"]
    below = [info for info in found if info.key in ("a/z", "a/é")]
    again = storage.list_files(storage.join(root, "a"), deep=False)
    assert [(i.path, i.version) for i in again] == [(i.path, i.version) for i in below]
    assert storage.list_names(root) == {"Z", "a", "a-1", "a.b", "b", "ä"}
    assert storage.list_names(storage.join(root, "none")) == set()


def test_links_to_files_are_followed_and_rings_are_not(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "ring").symlink_to(tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    assert [info.key for info in storage.list_files(str(tmp_path))] == ["file", "link"]


def test_a_whole_file_of_bounded_size(root: str) -> None:
    path = storage.join(root, "file")
    storage.publish_bytes(path, bytes(100))
    assert storage.read_capped(path, 100) == storage.read_capped(path, 1 << 60) == bytes(100)
    with pytest.raises(OSError, match="100 bytes, more than 99"):
        storage.read_capped(path, 99)
    with pytest.raises(FileNotFoundError):
        storage.read_capped(storage.join(root, "none"), 1)


def test_ranges_are_exact(root: str) -> None:
    path = storage.join(root, "file")
    data = bytes(range(256)) * 4
    storage.publish_bytes(path, data)
    assert storage.read_bytes(path, 10, 20) == data[10:30]
    assert storage.read_bytes(path, 1000) == data[1000:]
    assert storage.read_bytes(path, 10, 0) == b""
    with RangeReader() as reader:
        assert reader.read(path, 0, 1024) == data
        assert reader.read(path, 1024, 0) == b""
        with pytest.raises(OSError, match="before 1025"):
            reader.read(path, 1000, 25)
        with pytest.raises(FileNotFoundError):
            reader.read(storage.join(root, "none"), 0, 1)
    with storage.open_stream(path) as stream:
        assert stream.read() == data
    assert storage.sha256_file(path)[1] == 1024


def test_a_reader_holds_few_files_and_is_shared_by_threads(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}" for i in range(20)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * 5000)
    wrong: list[int] = []
    before = len(list(FDS.iterdir()))
    with RangeReader(max_open=3) as reader:

        def look(seed: int) -> None:
            rows = np.random.default_rng(seed).integers(0, 20, 200).tolist()
            wrong.extend(i for i in rows if reader.read(str(paths[i]), 100, 200) != bytes([i]) * 200)

        threads = [threading.Thread(target=look, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(list(FDS.iterdir())) <= before + 3
    assert not wrong
    assert len(list(FDS.iterdir())) == before


def test_linking_keeps_what_is_there(root: str) -> None:
    one, two, target = (storage.join(root, name) for name in ("one", "two", "deep/target"))
    storage.publish_bytes(one, b"1")
    storage.publish_bytes(two, b"2")
    if root.startswith("memory"):
        storage.publish_bytes(storage.join(root, "deep", "other"), b"")
    storage.link_or_copy(one, target)
    storage.link_or_copy(two, target)
    assert storage.read_bytes(target) == b"1"
    storage.remove_file(one)
    storage.remove_file(one)
    assert storage.read_bytes(target) == b"1"
    storage.remove_tree(storage.join(root, "deep"))
    storage.remove_tree(storage.join(root, "deep"))
    assert not storage.exists(target)
    assert storage.exists(two)


def test_tables_and_arrays_come_back_and_equal_ones_give_equal_bytes(root: str, tmp_path: Path) -> None:
    table = pa.table({"a": list(range(1000)), "b": [None, "x"] * 500})
    vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float16)
    for name in ("1", "2"):
        storage.write_table(tmp_path / f"t{name}", table)
        storage.write_vectors(tmp_path / f"v{name}", vectors)
    assert (tmp_path / "t1").read_bytes() == (tmp_path / "t2").read_bytes()
    assert (tmp_path / "v1").read_bytes() == (tmp_path / "v2").read_bytes()
    for name in ("t1", "v1"):
        storage.publish_file(tmp_path / name, storage.join(root, "out", name))
    assert storage.read_table(storage.join(root, "out", "t1")) == table
    assert storage.read_table(storage.join(root, "out", "t1"), ["b"]).column_names == ["b"]
    np.testing.assert_array_equal(storage.read_vectors(storage.join(root, "out", "v1")), vectors)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not a table at all", bytes(500)])
def test_damage_is_named(root: str, data: bytes) -> None:
    path = storage.join(root, "file")
    storage.publish_bytes(path, data)
    with pytest.raises(IntegrityError, match="file cannot be read as parquet"):
        storage.read_table(path)
    with pytest.raises(IntegrityError, match="file is no whole array file"):
        storage.read_vectors(path)


def test_cut_files_are_named(tmp_path: Path) -> None:
    storage.write_table(tmp_path / "table", pa.table({"a": list(range(1000))}))
    storage.write_vectors(tmp_path / "vectors", np.ones((100, 8), np.float16))
    for name in ("table", "vectors"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(IntegrityError, match="table"):
        storage.read_table(str(tmp_path / "table"))
    with pytest.raises(IntegrityError, match="vectors"):
        storage.read_vectors(str(tmp_path / "vectors"))


def test_pickles_are_not_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], object))
    with pytest.raises(IntegrityError):
        storage.read_vectors(str(tmp_path / "a.npy"))
    with pytest.raises(ValueError, match="Object arrays"):
        storage.write_vectors(tmp_path / "b.npy", np.array([{"x": 1}], object))


@pytest.mark.parametrize(
    "url",
    [
        "http://x/y",
        "pipe://rm -rf",
        "ftp://x",
        "zip::s3://b/x.zip",
        "simplecache::memory://x",
        "S3://b",
        "://x",
    ],
)
def test_other_schemes_are_refused_everywhere(url: str) -> None:
    for function in (
        storage.check_scheme,
        storage.stat,
        storage.read_bytes,
        storage.exists,
        storage.is_local,
    ):
        with pytest.raises(ConfigError, match="scheme"):
            function(url)


def test_what_a_plain_path_may_contain() -> None:
    for path in ("/a/b", "a/b", "a:b", "/a::b/c", "file:///a"):
        assert storage.check_scheme(path) == "file"
    assert storage.local_path("file:///a/b") == Path("/a/b")


@given(user=st.text("abcXYZ019%+._-", min_size=1), password=st.text("abc:/@%+._-", min_size=1))
@settings(max_examples=50)
def test_no_credential_survives_redaction(user: str, password: str) -> None:
    secret = f"{user}:{password.replace('/', '_')}"
    assert storage.redact(f"s3://{secret}@host/bucket/x@y") == "s3://***@host/bucket/x@y"
    assert storage.redact("s3://bucket/x@y") == "s3://bucket/x@y"
    assert storage.redact("/plain@path") == "/plain@path"


def test_join() -> None:
    assert storage.join("/a/", "b", "c") == "/a/b/c"
    assert storage.join("s3://b", "c") == "s3://b/c"
    assert storage.join("/", "a") == "/a"


def test_a_source_must_be_a_folder(root: str) -> None:
    storage.publish_bytes(storage.join(root, "file"), b"x")
    storage.require_dir(root)
    with pytest.raises(SourceError, match="a file"):
        storage.require_dir(storage.join(root, "file"))
    with pytest.raises(SourceError, match="nothing there"):
        storage.require_dir(storage.join(root, "none"))


@pytest.mark.parametrize(("scheme", "package"), [("gs", "gcsfs"), ("az", "adlfs"), ("s3", r"lvd\[s3\]")])
def test_a_driver_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, scheme: str, package: str
) -> None:
    def missing(_scheme: str) -> None:
        raise ImportError("no such module")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    for function in (storage.stat, storage.read_bytes, storage.list_names, storage.require_dir):
        with pytest.raises(ConfigError, match=f"pip install '?{package}"):
            function(f"{scheme}://key:secret@bucket/x")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (botocore.exceptions.NoCredentialsError(), SourceError),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="http://x"), OSError),
        (aiohttp.ClientPayloadError("half"), OSError),
        (FileNotFoundError("gone"), FileNotFoundError),
        (TypeError("a mistake of ours"), TypeError),
    ],
    ids=lambda value: getattr(value, "__name__", None) or type(value).__name__,
)
def test_what_a_driver_raises_is_an_error_that_callers_know(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, expected: type[Exception]
) -> None:
    class Broken:
        def __getattr__(self, _name: str) -> Any:
            def fail(*_args: object, **_kwargs: object) -> None:
                raise raised

            return fail

    monkeypatch.setattr(fsspec, "filesystem", lambda *_names, **_settings: Broken())
    calls: list[Callable[[str], object]] = [
        storage.stat,
        storage.exists,
        storage.is_dir,
        storage.read_bytes,
        storage.sha256_file,
        lambda path: list(storage.list_files(path)),
        lambda path: storage.publish_bytes(path, b"x"),
    ]
    for call in calls:
        with pytest.raises(expected) as caught:
            call("s3://key:secret@bucket/x")
        assert "secret" not in str(caught.value)
