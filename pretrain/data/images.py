"""The images of a data set by row: where the bytes of each lie, and how they are read."""

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from curation.disk_errors import naming
from curation.errors import ConfigError
from curation.local_files import fsync
from curation.shard.read import ShardReader, fetch_shard, open_dataset

_MAX_OPEN = 256  # a shuffle goes from shard to shard
_MAX_OPEN_SPOOLED = 8  # an open file keeps its room on the disk after it was removed
_PLACE = np.dtype([("shard", "<i4"), ("num_bytes", "<i4"), ("offset", "<i8")])


@dataclass(frozen=True)
class Spool:
    """Where shards of an object store are kept while they are in use.

    Attributes:
        folder: of this machine, for all processes on it.
        max_bytes: of all shards in it; the ones used longest ago go first.
    """

    folder: Path
    max_bytes: int


class Images:
    """Random access to the bytes of every image of a finished dataset; safe to send to a worker process.

    The places of all images stand in one memory-mapped file of 16 bytes an image, which the processes of a
    machine share: a shard's own index would have to be loaded again for nearly every read of a shuffle.

    Args:
        dataset: a run directory, or its `manifest.json`: a path or a URL.
        cache: a folder for the file of places.
        spool: for shards of an object store; unused for local ones.

    Attributes:
        digest: names the dataset's content.

    Raises:
        IntegrityError: when the dataset is not what its manifest and index say.
    """

    def __init__(self, dataset: str, *, cache: Path, spool: Spool) -> None:
        reader, self.digest = open_dataset(dataset)
        self.reader = _reopened(reader.root)
        if not len(self.reader):
            raise ConfigError(
                "There is nothing to train on", got=f"{dataset} has no image", expected="one at least"
            )
        self._spool = spool
        self._places_path = cache / f"places-{self.digest[:16]}.npy"
        if not self._places_path.exists():
            _write_places(self.reader, self._places_path)
        self._places = np.load(self._places_path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._places)

    def __getstate__(self) -> dict[str, Any]:
        """A worker opens and maps the files itself."""
        return {**self.__dict__, "_places": None, "reader": self.reader.root}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.reader = _reopened(state["reader"])
        self._places = np.load(self._places_path, mmap_mode="r")

    @property
    def is_local(self) -> bool:
        """Whether the operating system reads the shards."""
        return self.reader.is_local

    def require_room(self, window_images: int) -> None:
        """See that the spool holds the shards of two windows, which are in use together where one ends.

        Raises:
            ConfigError: when it does not, and every image would be fetched with its whole shard.
        """
        sizes = sorted((shard.num_bytes for shard in self.reader.shards), reverse=True)
        mean_images = max(1, len(self) // len(sizes))
        num_shards = 2 * (-(-window_images // mean_images) + 1)
        needed = sum(sizes[:num_shards])
        if not self.is_local and needed > self._spool.max_bytes:
            raise ConfigError(
                "The shards of two windows do not fit into data.spool_bytes",
                got=f"{self._spool.max_bytes:,} bytes",
                expected=f"at least {needed:,} for data.window_images {window_images:,}",
                remedy="Raise the one or lower the other",
            )

    @property
    def shard_sizes(self) -> list[int]:
        """Images in each shard."""
        return [shard.num_samples for shard in self.reader.shards]

    def read(self, row: int) -> bytes:
        """The bytes of one image.

        Raises:
            OSError: when they cannot be read.
            IntegrityError: when a shard that was fetched is not the one that the index names.
        """
        place = self._places[row]
        shard, offset, num_bytes = int(place["shard"]), int(place["offset"]), int(place["num_bytes"])
        if self.is_local:
            return self.reader.read_range(shard, offset, num_bytes)
        while True:
            path = str(self._spooled(shard))
            with contextlib.suppress(FileNotFoundError):  # another process made room before it was opened
                return self.reader.read_range(shard, offset, num_bytes, path=path)

    def keys(self, rows: Int64[np.ndarray, "m"]) -> list[str]:
        """The image ids of some rows."""
        located = [self.reader.locate(int(row)) for row in rows]
        return [self.reader.index(shard).keys[sample].as_py() for shard, sample in located]

    def _spooled(self, shard: int) -> Path:
        path = self._spool.folder / f"{self.reader.shards[shard].sha256}.tar"
        try:
            os.utime(path)  # used now
        except FileNotFoundError:
            with _one_at_a_time(path.with_suffix(".lock")):
                if not path.exists():  # all processes of a machine want a new window's shards at once
                    with naming(path, num_bytes=self.reader.shards[shard].num_bytes):
                        fetch_shard(self.reader.shards[shard], path)
                    _make_room(self._spool, keep=path)
        return path


def _reopened(root: str) -> ShardReader:
    reader = ShardReader(root, max_open=_MAX_OPEN)
    return reader if reader.is_local else ShardReader(root, max_open=_MAX_OPEN_SPOOLED)


def _write_places(reader: ShardReader, path: Path) -> None:
    """Write the places of all images, whole or not at all; a twin that does the same is harmless."""
    temp = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    header = {"descr": np.lib.format.dtype_to_descr(_PLACE), "fortran_order": False, "shape": (len(reader),)}
    with naming(path, num_bytes=_PLACE.itemsize * len(reader)), contextlib.ExitStack() as undo:
        path.parent.mkdir(parents=True, exist_ok=True)
        undo.callback(temp.unlink, missing_ok=True)
        # Not through a memory map: on a full disk the kernel ends who writes into one.
        with temp.open("wb") as out:
            np.lib.format.write_array_header_1_0(out, header)
            for number in range(len(reader.shards)):
                offsets, sizes = reader.image_ranges(number)
                rows = np.empty(len(offsets), _PLACE)
                rows["shard"], rows["offset"], rows["num_bytes"] = number, offsets, sizes
                out.write(rows.tobytes())
        fsync(temp)
        temp.rename(path)


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Keep other processes of this machine, and other threads, from what happens inside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_room(spool: Spool, *, keep: Path) -> None:
    """Remove the shards used longest ago until the rest fits. One that is needed again is fetched again."""
    found = []
    for path in spool.folder.glob("*.tar"):
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            info = path.stat()
            found.append((info.st_mtime_ns, info.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= spool.max_bytes:
            break
        if path != keep:
            path.unlink(missing_ok=True)
            total -= size
