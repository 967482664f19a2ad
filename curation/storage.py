"""All file access: local paths by the operating system, everything else through fsspec.

A path is a string: `/data/x`, `relative/x`, `file:///data/x` or `s3://bucket/x`. What is published is whole
or absent: a temporary name, fsync and rename on a local disk; one conditional put on an object store.
"""

import contextlib
import errno
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation import drivers, local_files, local_reads
from curation.disk_errors import naming, with_path
from curation.errors import ConfigError, IntegrityError, SourceError
from curation.printed import redact_url

# Anything else could start a program (`pipe:`), reach inside the network (`http:` has a module of its own,
# with its own checks) or read another file through a chain (`zip::…`).
ALLOWED_SCHEMES = ("file", "s3", "s3a", "gs", "gcs", "az", "abfs", "memory")
_COPY_BYTES = 4 << 20
redact = redact_url


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file: where it is, its key below the listed root, its size, and what changes when it changes."""

    path: str
    key: str
    num_bytes: int
    version: str


def check_scheme(url: str) -> str:
    """Return the scheme of `url` (`file` for a plain path).

    Raises:
        ConfigError: for a scheme outside the allow-list, or a chained URL.
    """
    scheme = url.split("://", 1)[0] if "://" in url else "file"
    if scheme not in ALLOWED_SCHEMES or "::" in url.split("/", 1)[0]:
        raise ConfigError(
            "A path has a scheme that is not read",
            got=redact(url),
            expected="a plain path or one of " + ", ".join(f"{s}://" for s in ALLOWED_SCHEMES),
        )
    return scheme


def is_local(path: str) -> bool:
    """Whether the operating system reads `path`."""
    return check_scheme(path) == "file"


def local_path(path: str) -> Path:
    """`path` as the operating system knows it."""
    return Path(path.removeprefix("file://"))


def join(root: str, *names: str) -> str:
    """`root` and `names` with single slashes between them."""
    return "/".join([root.rstrip("/") or "/", *names]).replace("//", "/", 1 if root == "/" else 0)


@contextlib.contextmanager
def _remote(path: str) -> Iterator[tuple[Any, str]]:
    """The file system of a path, whose errors within are those that callers know, and its name there."""
    scheme, shown = check_scheme(path), redact(path)
    with drivers.translated(shown):
        with drivers.opening(scheme, shown):
            driver = fsspec.get_filesystem_class(scheme)
            # Not `url_to_fs`: to it `::`, which a key may hold, is a chain of stores.
            fs = fsspec.filesystem(scheme, **driver._get_kwargs_from_urls(path))
            drivers.limit_retries(fs, scheme)
            name = str(driver._strip_protocol(path))
        yield fs, name


def _version(info: dict[str, Any]) -> str:
    tag = info.get("ETag") or info.get("etag") or info.get("LastModified") or info.get("created") or ""
    return f"{str(tag).strip(chr(34))}-{info['size']}"


def stat(path: str) -> FileInfo:
    """Size and version of one file; its key is its name.

    Raises:
        FileNotFoundError: when there is no such file.
    """
    if is_local(path):
        found = local_reads.in_time(path, local_path(path).stat)
        return FileInfo(path, Path(path).name, found.st_size, f"{found.st_mtime_ns}-{found.st_size}")
    with _remote(path) as (fs, name):
        info = fs.info(name)
    return FileInfo(path, name.rsplit("/", 1)[-1], int(info["size"]), _version(info))


def exists(path: str) -> bool:
    """Whether a file or folder lies at `path`."""
    if is_local(path):
        return local_reads.in_time(path, local_path(path).exists)
    with _remote(path) as (fs, name):
        return bool(fs.exists(name))


def is_dir(path: str) -> bool:
    """Whether a folder (on an object store: a prefix with something below it) lies at `path`."""
    if is_local(path):
        return local_reads.in_time(path, local_path(path).is_dir)
    with _remote(path) as (fs, name):
        return bool(fs.isdir(name))


def list_files(root: str, *, deep: bool = True) -> Iterator[FileInfo]:
    """Stream every regular file below `root` in key order: depth first, the names of a folder sorted.

    Holds one folder's names at a time. Links to files are followed, links to folders are not (they can
    form rings). Where not `deep`, only what lies directly in `root` is given.
    """
    if is_local(root):
        yield from _list_local(root.rstrip("/") or "/", local_path(root), "", deep=deep)
        return
    with _remote(root) as (fs, name):
        folder = name.rstrip("/")
    yield from _list_remote(fs, root.rstrip("/"), folder, "", deep=deep)


def list_names(folder: str) -> set[str]:
    """The names of what lies directly in a folder; none where there is no such folder."""
    if is_local(folder):
        try:
            return set(os.listdir(local_path(folder)))  # noqa: PTH208 — a set of names, not of paths
        except FileNotFoundError:
            return set()
    with _remote(folder) as (fs, name):
        try:
            return {str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in fs.ls(name, detail=False)}
        except FileNotFoundError:
            return set()


def _list_local(root: str, folder: Path, prefix: str, *, deep: bool) -> Iterator[FileInfo]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda e: e.name.encode("utf-8", "surrogateescape"))
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if deep:
                yield from _list_local(root, folder / entry.name, f"{prefix}{entry.name}/", deep=True)
        elif entry.is_file():
            info = entry.stat()
            key = prefix + entry.name
            yield FileInfo(join(root, key), key, info.st_size, f"{info.st_mtime_ns}-{info.st_size}")


def _list_remote(fs: Any, root: str, folder: str, prefix: str, *, deep: bool) -> Iterator[FileInfo]:
    with drivers.translated(redact(root)):
        found = fs.ls(folder, detail=True)
    # A store may hold both an object and a folder of one name.
    entries = {(str(e["name"]).rstrip("/").rsplit("/", 1)[-1], e["type"] == "directory"): e for e in found}
    for name, is_folder in sorted(entries, key=lambda place: (place[0].encode(), place[1])):
        entry = entries[name, is_folder]
        if is_folder:
            if deep:
                yield from _list_remote(fs, root, f"{folder}/{name}", f"{prefix}{name}/", deep=True)
        elif str(entry["name"]).rstrip("/") != folder:  # a zero-byte key that stands for the folder itself
            key = prefix + name
            yield FileInfo(join(root, key), key, int(entry["size"]), _version(entry))


@contextlib.contextmanager
def open_stream(path: str) -> Iterator[BinaryIO]:
    """Open `path` for one pass from start to end, read ahead in large pieces."""
    if is_local(path):
        with with_path(path), io.BufferedReader(local_reads.RegularFile(local_path(path)), 1 << 20) as stream:
            yield stream
        return
    large = {"block_size": 16 << 20, "cache_type": "readahead"}
    with _remote(path) as (fs, name), fs.open(name, "rb", **large) as stream:
        yield cast(BinaryIO, stream)


@contextlib.contextmanager
def open_seekable(path: str) -> Iterator[BinaryIO]:
    """Open `path` for a reader that seeks and buffers by itself; nothing is read ahead."""
    if is_local(path):
        with with_path(path), local_reads.RegularFile(local_path(path)) as raw:
            yield cast(BinaryIO, raw)
        return
    with _remote(path) as (fs, name), fs.open(name, "rb", cache_type="none") as stream:
        yield cast(BinaryIO, stream)


def read_bytes(path: str, offset: int = 0, num_bytes: int | None = None) -> bytes:
    """The bytes of a file, or of a range of it.

    Raises:
        OSError: as the operating system or the object store says.
    """
    if is_local(path):
        with with_path(path), local_reads.RegularFile(local_path(path)) as raw:
            raw.seek(offset)
            return raw.readall() if num_bytes is None else raw.read(num_bytes) or b""
    end = None if num_bytes is None else offset + num_bytes
    with _remote(path) as (fs, name):
        return bytes(fs.cat_file(name, start=offset or None, end=end)) if end != offset else b""


def read_capped(path: str, max_bytes: int) -> bytes:
    """The bytes of a whole file that is no larger than `max_bytes`.

    Raises:
        OSError: it is larger, or as the operating system or the object store says.
    """
    size = stat(path).num_bytes
    # A byte more: it may have grown since, or be one of /proc, which have no size.
    data = read_bytes(path, 0, min(size, max_bytes) + 1)
    if max(size, len(data)) > max_bytes:
        raise OSError(errno.EFBIG, f"{max(size, len(data)):,} bytes, more than {max_bytes:,}", path)
    return data


def publish_bytes(path: str, data: bytes, *, replace: bool = False) -> bool:
    """Make `data` appear at `path`, whole or not at all.

    Args:
        replace: whether a file there is replaced; otherwise it stays as it is (a twin was there first).

    Returns:
        Whether it appeared.
    """
    if is_local(path):
        return local_files.publish_bytes(local_path(path), data, replace=replace)
    mode = "overwrite" if replace else "create"
    return _put(path, lambda fs, name: fs.pipe_file(name, data, mode=mode))


def publish_file(temp_path: str | Path, path: str, *, replace: bool = False) -> bool:
    """Move a finished local file to `path`, whole or not at all.

    Args:
        temp_path: the file, on the file system of `path` when that is local.
        replace: whether a file there is replaced; otherwise both stay as they are.

    Returns:
        Whether it was moved.
    """
    temp = Path(temp_path)
    if is_local(path):
        return local_files.publish_file(temp, local_path(path), replace=replace)
    mode = "overwrite" if replace else "create"
    if not _put(path, lambda fs, name: fs.put_file(str(temp), name, mode=mode)):
        return False
    temp.unlink()
    return True


def _put(path: str, put: Callable[[Any, str], object]) -> bool:
    """Whether a conditional put has put anything."""
    try:
        with _remote(path) as (fs, name):
            put(fs, name)
    except FileExistsError:
        return False
    return True


def link_or_copy(path: str, target: str) -> None:
    """Make the published file `path` appear at `target` too, without copying its bytes where that can be."""
    if is_local(path) and is_local(target):
        try:
            local_files.link(local_path(path), local_path(target))
        except OSError:  # another file system, or one without hard links
            publish_bytes(target, read_bytes(path))
        return
    with _remote(path) as (_, source), _remote(target) as (fs, name):
        if not fs.exists(name):
            fs.copy(source, name)


def remove_file(path: str) -> None:
    """Remove a file; nothing where there is none."""
    if is_local(path):
        local_path(path).unlink(missing_ok=True)
        return
    with _remote(path) as (fs, name), contextlib.suppress(FileNotFoundError):
        fs.rm_file(name)


def remove_tree(path: str) -> None:
    """Remove a folder and all below it; nothing where there is none."""
    if is_local(path):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(local_path(path))
        return
    with _remote(path) as (fs, name):
        if fs.exists(name):
            fs.rm(name, recursive=True)


def sha256_file(path: str) -> tuple[str, int]:
    """SHA-256 in hex and the number of bytes of a file, read in one pass."""
    digest, total = hashlib.sha256(), 0
    with open_stream(path) as stream:
        while block := stream.read(_COPY_BYTES):
            digest.update(block)
            total += len(block)
    return digest.hexdigest(), total


def write_table(path: str | Path, table: pa.Table) -> None:
    """Write a table to a local parquet file; equal tables give equal bytes."""
    with naming(path, num_bytes=table.nbytes):
        pq.write_table(table, str(path), compression="zstd", row_group_size=1 << 16, write_statistics=True)


def read_table(path: str, columns: list[str] | None = None) -> pa.Table:
    """Read a parquet file.

    Raises:
        IntegrityError: when the file is no whole parquet file.
    """
    try:
        if is_local(path):
            local_reads.require_regular(local_path(path))
        source = str(local_path(path)) if is_local(path) else pa.BufferReader(read_bytes(path))
        # A bare ParquetFile: read_table would look for `key=value` partitions in the folders' names.
        with pq.ParquetFile(source, memory_map=is_local(path)) as file:
            return file.read(columns=columns)
    except pa.ArrowInvalid as error:
        raise IntegrityError(
            f"{redact(path)} cannot be read as parquet", got=error, remedy="Remove it and rerun"
        ) from error


def write_vectors(path: str | Path, vectors: np.ndarray) -> None:
    """Write an array to a local `.npy` file."""
    if vectors.dtype.hasobject:
        raise ValueError("Object arrays are pickles")
    whole = np.ascontiguousarray(vectors)
    with naming(path, num_bytes=whole.nbytes), Path(path).open("wb") as out:
        np.lib.format.write_array_header_1_0(out, np.lib.format.header_data_from_array_1_0(whole))
        out.write(whole.data)  # NumPy's own writer does not tell why a write has failed


def read_vectors(path: str) -> np.ndarray:
    """An array from a `.npy` file: memory-mapped where it is local."""
    try:
        if is_local(path):
            local_reads.require_regular(local_path(path))
            vectors: np.ndarray = np.load(local_path(path), mmap_mode="r", allow_pickle=False)
        else:
            vectors = np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
        return vectors
    except (ValueError, EOFError) as error:
        raise IntegrityError(
            f"{redact(path)} is no whole array file", got=error, remedy="Remove it and rerun"
        ) from error


def require_dir(path: str) -> None:
    """Raise a SourceError unless a folder lies at `path`."""
    if not is_dir(path):
        got = "a file" if exists(path) else "nothing there"
        raise SourceError(
            f"A source folder cannot be listed: {redact(path)}",
            got=got,
            expected="a folder",
            remedy="Check the path in the config",
        )
