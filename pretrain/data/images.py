"""The images of a data set by row: where the bytes of each lie, and how they are read."""

import contextlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from curation.disk_errors import naming
from curation.errors import ConfigError
from curation.local_files import fsync
from curation.shard.read import ShardReader, fetch_shard, open_dataset
from pretrain.data.spool import Spool, make_room, one_at_a_time, require_own

_MAX_OPEN = 256  # a shuffle goes from shard to shard
_MAX_OPEN_SPOOLED = 8  # an open file keeps its room on the disk after it was removed
_PLACE = np.dtype([("shard", "<i4"), ("num_bytes", "<i4"), ("offset", "<i8")])


class Images:
    """Random access to the bytes of every image of a finished dataset; safe to send to a worker process.

    The places of all images stand in one memory-mapped file of 16 bytes an image, which the processes of a
    machine share: a shard's own index would have to be loaded again for nearly every read of a shuffle.

    Args:
        dataset: a run directory, or its `manifest.json`: a path or a URL.
        cache: a folder for the file of places; beside it is remembered which local shards were hashed.
        spool: for shards of an object store; unused for local ones.

    Attributes:
        digest: names the dataset's content.

    Raises:
        IntegrityError: when the dataset is not what its manifest and index say.
    """

    def __init__(self, dataset: str, *, cache: Path, spool: Spool) -> None:
        reader, self.digest = open_dataset(dataset)
        self._record = (cache.parent if reader.is_local else spool.folder) / "hashes.jsonl"
        if not reader.is_local:
            require_own(spool.folder)
        self.reader = _reopened(reader.root, reader.proof, self._record, is_local=reader.is_local)
        if not len(self.reader):
            raise ConfigError(
                "There is nothing to train on", got=f"{dataset} has no image", expected="one at least"
            )
        self._spool = spool
        self._places_path = _places_file(self.reader, cache, name=f"places-{self.digest[:16]}")
        self._places = np.load(self._places_path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._places)

    def __getstate__(self) -> dict[str, Any]:
        """A worker opens and maps the files itself."""
        return {
            **self.__dict__,
            "_places": None,
            "reader": (self.reader.root, self.reader.proof, self.is_local),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        root, proof, is_local = state["reader"]
        self.reader = _reopened(root, proof, self._record, is_local=is_local)
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
            IntegrityError: when the shard is not the one that was written.
        """
        place = self._places[row]
        shard, offset, num_bytes = int(place["shard"]), int(place["offset"]), int(place["num_bytes"])
        if self.is_local:
            self.reader.require_sound(shard)
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
        lock = path.with_suffix(".lock")
        with contextlib.suppress(FileNotFoundError):
            os.utime(lock, follow_symlinks=False)  # used now
            if self._is_spooled(shard, path):
                return path
        with one_at_a_time(lock):
            # All processes of a machine want the shards of a new window at once.
            if not self._is_spooled(shard, path):
                for stale in (path, *path.parent.glob(f".{path.name}.*.tmp")):
                    stale.unlink(missing_ok=True)
                fetch_shard(self.reader.shards[shard], path)
                self.reader.hashes.remember(str(path), self.reader.shards[shard].sha256)
                make_room(self._spool, keep=path)
        return path

    def _is_spooled(self, shard: int, path: Path) -> bool:
        return not path.is_symlink() and self.reader.is_sound(shard, path=str(path))


def _reopened(root: str, proof: Mapping[str, str], record: Path, *, is_local: bool) -> ShardReader:
    max_open = _MAX_OPEN if is_local else _MAX_OPEN_SPOOLED
    return ShardReader(root, max_open=max_open, proof=proof, record=record)


def _places_file(reader: ShardReader, cache: Path, *, name: str) -> Path:
    """The file of places: `NAME-SHA256.npy`; one that is not what its name says is made anew."""
    with reader.hashes.alone(str(cache / name)):
        for path in sorted(cache.glob(f"{name}-*.npy")):
            if path.stem == f"{name}-{reader.hashes.sha256(str(path))[:16]}":
                return path
            path.unlink()
        for stale in cache.glob(f".{name}.*.tmp"):
            stale.unlink()
        return _write_places(reader, cache, name=name)


def _write_places(reader: ShardReader, cache: Path, *, name: str) -> Path:
    """Write the places of all images, whole or not at all."""
    temp = cache / f".{name}.{uuid.uuid4().hex}.tmp"
    header = {"descr": np.lib.format.dtype_to_descr(_PLACE), "fortran_order": False, "shape": (len(reader),)}
    with naming(temp, num_bytes=_PLACE.itemsize * len(reader)), contextlib.ExitStack() as undo:
        cache.mkdir(parents=True, exist_ok=True)
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
        path = cache / f"{name}-{reader.hashes.sha256(str(temp))[:16]}.npy"
        temp.rename(path)
        return path
