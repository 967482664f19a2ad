"""Images by row: from local shards, and from an object store through a spool."""

import json
import os
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
from drawn_dataset import draw_jpeg, write_dataset_of

from curation import storage
from curation.errors import ConfigError, IntegrityError, SourceError
from curation.shard import read
from curation.shard.index import Shard
from pretrain.data import images as module
from pretrain.data import opening
from pretrain.data.config import DataConfig
from pretrain.data.images import Images
from pretrain.data.spool import Spool, own_spool, require_own

SIZES = (13, 7, 17)


def open_images(dataset: str, folder: Path, max_bytes: int = 1 << 30) -> Images:
    return Images(dataset, cache=folder / "cache", spool=Spool(folder / "spool", max_bytes))


@pytest.fixture
def remote(drawn: Path) -> Iterator[str]:
    """The same dataset on a store that has no files."""
    fs = fsspec.filesystem("memory")
    fs.put(str(drawn), "/bucket/run", recursive=True)
    yield "memory://bucket/run"
    fs.rm("/bucket", recursive=True)


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the shards fetched so far."""
    found: list[str] = []

    def fetch(shard: Shard, target: Path) -> None:
        found.append(shard.name)
        read.fetch_shard(shard, target)

    monkeypatch.setattr(module, "fetch_shard", fetch)
    return found


@pytest.mark.parametrize("where", ["drawn", "remote"])
def test_every_image_by_its_row(where: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    images = open_images(str(request.getfixturevalue(where)), tmp_path)
    assert images.is_local == (where == "drawn")
    assert images.shard_sizes == list(SIZES)
    assert [images.read(row) for row in range(37)] == [draw_jpeg(n) for n in range(37)]
    keys = images.keys(np.arange(37))
    assert len(set(keys)) == 37
    assert keys[13] == images.reader.index(1).keys[0].as_py()
    again = pickle.loads(pickle.dumps(images))
    assert [again.read(row) for row in (36, 0)] == [draw_jpeg(36), draw_jpeg(0)]
    assert len(again) == len(images) == 37


def test_places_take_sixteen_bytes_and_are_written_once(drawn: Path, tmp_path: Path) -> None:
    images = open_images(str(drawn), tmp_path)
    [file] = (tmp_path / "cache").iterdir()
    assert np.load(file).nbytes == 16 * 37
    was = file.stat().st_mtime_ns
    assert open_images(str(drawn / "manifest.json"), tmp_path).digest == images.digest
    assert file.stat().st_mtime_ns == was
    other = write_dataset_of(tmp_path / "other", [[draw_jpeg(1)]])
    assert open_images(str(other), tmp_path).digest != images.digest
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"manifest\.json"):
        open_images(str(tmp_path), tmp_path)


def test_a_shard_is_fetched_once(remote: str, fetches: list[str], tmp_path: Path) -> None:
    images = open_images(remote, tmp_path)
    for row in [0, 36, 5, 12, 20, 36]:
        images.read(row)
    assert fetches == ["x-000000.tar", "x-000002.tar"]
    open_images(remote, tmp_path).read(1)
    assert len(fetches) == 2


def test_a_damaged_shard_is_not_used(remote: str, tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    [path] = fs.glob("/bucket/run/dataset-*/x-000001.tar")
    data = bytearray(fs.cat_file(path))
    data[700] ^= 1
    fs.pipe_file(path, bytes(data))
    images = open_images(remote, tmp_path)
    with pytest.raises(IntegrityError, match=r"x-000001\.tar is not the shard that was written"):
        images.read(15)
    assert not list((tmp_path / "spool").glob("*.tar*"))
    assert not list((tmp_path / "spool").glob(".*"))
    assert images.read(0) == draw_jpeg(0)


def test_a_missing_shard_is_an_error_and_not_waited_for(remote: str, tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    images = open_images(remote, tmp_path)
    fs.rm(fs.glob("/bucket/run/dataset-*/x-000001.tar")[0])
    with pytest.raises(IntegrityError, match=r"missing: memory://bucket/run/.*x-000001\.tar"):
        images.read(15)


def test_the_shards_used_longest_ago_go_first(remote: str, fetches: list[str], tmp_path: Path) -> None:
    probe = open_images(remote, tmp_path)
    first, second, third = (shard.num_bytes for shard in probe.reader.shards)
    images = open_images(remote, tmp_path, max_bytes=first + third)
    for row in (0, 13):
        images.read(row)
    for number, path in enumerate(sorted((tmp_path / "spool").glob("*.tar"))):
        is_first = probe.reader.shards[0].sha256 in path.name
        os.utime(path.with_suffix(".lock"), ns=(number, 2 if is_first else 1))
    images.read(20)  # makes room by the second shard, which was used before the first
    kept = {path.stem for path in (tmp_path / "spool").glob("*.tar")}
    assert kept == {probe.reader.shards[n].sha256 for n in (0, 2)}
    assert sum(p.stat().st_size for p in (tmp_path / "spool").glob("*.tar")) <= first + third
    assert images.read(13) == draw_jpeg(13)
    assert fetches == [f"x-00000{n}.tar" for n in (0, 1, 2, 1)]
    assert second < first + third


@pytest.mark.parametrize("max_bytes", [1, 1 << 30])
def test_many_readers_at_once(max_bytes: int, remote: str, fetches: list[str], tmp_path: Path) -> None:
    """With room for nothing at all, every reader takes away what the others are about to open."""
    readers = [open_images(remote, tmp_path, max_bytes) for _ in range(3)]
    rows = np.random.default_rng(0).integers(0, 37, 150).tolist()
    start = threading.Barrier(6)

    def read_all(number: int) -> bool:
        start.wait()
        return all(readers[number % 3].read(row) == draw_jpeg(row) for row in rows[number::6])

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(read_all, range(6)))
    if max_bytes > 1:
        assert sorted(fetches) == [f"x-00000{n}.tar" for n in range(3)]
    assert not list((tmp_path / "spool").glob(".*"))


def test_windows_that_do_not_fit_the_spool_are_refused(drawn: Path, remote: str, tmp_path: Path) -> None:
    def opened(path: str, max_bytes: int) -> int:
        config = DataConfig(path=path, window_images=10)
        spool = Spool(tmp_path / "spool", max_bytes)
        return len(opening.open_images(config, cache=tmp_path / "cache", spool=spool))

    with pytest.raises(ConfigError, match="spool_bytes"):
        opened(remote, 1000)
    assert opened(remote, 1 << 30) == 37
    assert opened(str(drawn), 1) == 37  # nothing is spooled


def test_an_interrupted_table_of_places_leaves_nothing(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[..., object] = read.ShardReader.image_ranges

    def failing(reader: read.ShardReader, shard: int) -> object:
        if shard == 1:
            raise KeyboardInterrupt
        return real(reader, shard)

    monkeypatch.setattr(read.ShardReader, "image_ranges", failing)
    with pytest.raises(KeyboardInterrupt):
        open_images(str(drawn), tmp_path)
    assert not list((tmp_path / "cache").glob("*.npy"))
    monkeypatch.undo()
    assert open_images(str(drawn), tmp_path).read(20) == draw_jpeg(20)


def test_a_local_shard_that_is_damaged_is_refused_by_name(drawn: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(drawn, run_dir)
    [shard] = run_dir.glob("dataset-*/x-000001.tar")
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    images = open_images(str(run_dir), tmp_path)
    assert images.read(0) == draw_jpeg(0)
    with pytest.raises(IntegrityError, match=r"x-000001\.tar is not the shard that was written"):
        images.read(15)


def test_a_lock_that_is_a_link_leaves_what_it_leads_to(remote: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("dear")
    images = open_images(remote, tmp_path)
    folder = tmp_path / "spool"
    (folder / f"{images.reader.shards[0].sha256}.lock").symlink_to(victim)
    assert images.read(0) == draw_jpeg(0)
    assert victim.read_text() == "dear"


@pytest.mark.parametrize("how", ["file", "link", "old"])
def test_what_lies_in_the_spool_is_hashed_before_it_is_used(
    how: str, remote: str, fetches: list[str], tmp_path: Path
) -> None:
    images = open_images(remote, tmp_path)
    folder = tmp_path / "spool"
    path = folder / f"{images.reader.shards[0].sha256}.tar"
    other = tmp_path / "other.tar"
    other.write_bytes(bytes(images.reader.shards[0].num_bytes))
    match how:
        case "file":
            shutil.copy(other, path)
        case "link":
            path.symlink_to(other)
        case "old":
            images.read(0)
            fetches.clear()
            path.write_bytes(other.read_bytes())
    assert images.read(0) == draw_jpeg(0)
    assert fetches == ["x-000000.tar"]
    assert other.read_bytes() == bytes(images.reader.shards[0].num_bytes)


def test_a_shard_that_changes_is_hashed_again(drawn: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(drawn, run_dir)
    images = open_images(str(run_dir), tmp_path)
    assert images.read(15) == draw_jpeg(15)
    [shard] = run_dir.glob("dataset-*/x-000001.tar")
    was, whole = shard.stat(), shard.read_bytes()
    with shard.open("r+b") as file:
        file.seek(700)
        file.write(bytes([whole[700] ^ 1]))
    os.utime(shard, ns=(was.st_atime_ns, was.st_mtime_ns))  # the size and the time that it had
    again = open_images(str(run_dir), tmp_path)
    for reader in (images, again):
        with pytest.raises(IntegrityError, match=r"x-000001\.tar is not the shard that was written"):
            reader.read(15)
    shard.unlink()
    shard.write_bytes(whole)
    assert [reader.read(15) for reader in (images, again)] == [draw_jpeg(15)] * 2


def test_a_shard_is_hashed_once_for_all(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(drawn, run_dir)
    hashed: list[str] = []
    real = storage.sha256_file

    def noted(path: str) -> tuple[str, int]:
        hashed.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(storage, "sha256_file", noted)
    for images in (open_images(str(run_dir), tmp_path) for _ in range(2)):
        for one in (images, pickle.loads(pickle.dumps(images))):
            assert [one.read(row) for row in (0, 15, 1)] == [draw_jpeg(row) for row in (0, 15, 1)]
    assert sorted(name for name in hashed if name.endswith(".tar")) == ["x-000000.tar", "x-000001.tar"]


def test_places_that_are_damaged_are_made_anew(drawn: Path, tmp_path: Path) -> None:
    open_images(str(drawn), tmp_path)
    [file] = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-7] + b"\7" + whole[-6:])
    left = tmp_path / "cache" / f".{file.stem.rpartition('-')[0]}.{'0' * 32}.tmp"
    left.touch()
    images = open_images(str(drawn), tmp_path)
    assert [images.read(row) for row in range(37)] == [draw_jpeg(n) for n in range(37)]
    assert [one.read_bytes() for one in (tmp_path / "cache").iterdir()] == [whole]


def test_an_index_that_is_damaged_is_refused_by_name(drawn: Path, tmp_path: Path) -> None:
    """Its bytes decide which ranges are read, and the manifest has their hash."""
    for number, name in enumerate(("index/x-000001.parquet", "index.json")):
        run_dir = tmp_path / f"run{number}"
        shutil.copytree(drawn, run_dir)
        [root] = run_dir.glob("dataset-*")
        manifest = json.loads((run_dir / "manifest.json").read_text())
        manifest["files"] = [
            {
                "path": str(path.relative_to(run_dir)),
                "bytes": path.stat().st_size,
                "sha256": storage.sha256_file(str(path))[0],
            }
            for path in (root / "index.json", *(root / "index").iterdir())
        ]
        (run_dir / "manifest.json").write_text(json.dumps(manifest))
        assert open_images(str(run_dir), tmp_path / f"before{number}").read(15) == draw_jpeg(15)
        with (root / name).open("ab") as file:
            file.write(b" ")
        with pytest.raises(IntegrityError, match=Path(name).name):
            open_images(str(run_dir), tmp_path / f"after{number}")


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_spool_that_others_could_write_to_is_refused(tmp_path: Path, remote: str, mode: int) -> None:
    """They could have put a shard there, and a record that says that it was hashed."""
    spool = own_spool(str(tmp_path), max_bytes=1 << 30)
    spool.folder.mkdir()
    (spool.folder / "hashes.jsonl").write_text('["planted", "stamp", "hash"]\n')
    spool.folder.chmod(mode)
    for _ in range(2):  # it does not become one's own by being refused
        with pytest.raises(ConfigError, match=f"others may write to .mode {mode:04o}.*Remove it"):
            Images(remote, cache=tmp_path / "cache", spool=spool)
        assert spool.folder.stat().st_mode & 0o777 == mode
    assert [path.name for path in spool.folder.iterdir()] == ["hashes.jsonl"]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_spool_that_was_open_once_is_refused(tmp_path: Path, kind: str) -> None:
    spool = own_spool(str(tmp_path), max_bytes=1)
    require_own(spool.folder)
    planted = spool.folder / "hashes.jsonl"
    planted.touch() if kind == "file" else planted.symlink_to(tmp_path)
    os.chown(planted, 4711, -1, follow_symlinks=False)
    with pytest.raises(ConfigError, match=r"another user's hashes\.jsonl in it"):
        require_own(spool.folder)


def test_the_spool_is_a_folder_of_the_users_own(
    tmp_path: Path, remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = own_spool(str(tmp_path / "shared" / "tmp"), max_bytes=1)
    require_own(spool.folder)
    require_own(spool.folder)
    assert spool.folder.stat().st_mode & 0o777 == 0o700
    spool.folder.chmod(0o755)  # others could read, no more
    require_own(spool.folder)
    assert spool.folder.stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(tmp_path / "shared", target_is_directory=True)
    (tmp_path / "file").touch()
    for wrong in ("link", "file"):
        with pytest.raises(ConfigError, match=r"data\.spool_dir"):
            require_own(tmp_path / wrong)
    # Another user has a folder of another name; and one who has taken ours is told from us.
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    other = own_spool(str(tmp_path / "shared" / "tmp"), max_bytes=1)
    assert other.folder.name == "lvd-spool-4711"
    with pytest.raises(ConfigError, match="a folder of user"):
        Images(remote, cache=tmp_path / "cache", spool=spool)


def test_what_a_killed_fetch_left_is_removed(remote: str, tmp_path: Path) -> None:
    images = open_images(remote, tmp_path)
    left = tmp_path / "spool" / f".{images.reader.shards[0].sha256}.tar.{'0' * 32}.tmp"
    left.write_bytes(b"half")
    assert images.read(0) == draw_jpeg(0)
    assert not left.exists()
