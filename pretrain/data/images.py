"""The images of a data set by row: where the bytes of each lie, and how they are read."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from curation.errors import ConfigError
from curation.printed import redact
from curation.shard.read import ShardReader, fetch_shard, open_dataset
from pretrain.data.order import FullShuffle, Order, WindowShuffle
from pretrain.data.places import kept_file, open_places, write_places
from pretrain.data.spool import Spool, make_room, one_at_a_time, require_own

_MAX_OPEN = 256  # a shuffle goes from shard to shard
_MAX_OPEN_SPOOLED = 8  # an open file keeps its room on the disk after it was removed


class Images:
    """Random access to the bytes of every image of a finished dataset; safe to send to a worker process.

    Args:
        dataset: a run directory, or its `manifest.json`: a path or a URL.
        cache: a folder for the file of places; beside it is remembered which local shards were hashed.
        spool: for shards of an object store; unused for local ones.

    Attributes:
        name: its path.
        digest: the SHA-256 over the shards' own.

    Raises:
        IntegrityError: when the dataset is not what its manifest and index say.
    """

    is_exact = True

    def __init__(self, dataset: str, *, cache: Path, spool: Spool) -> None:
        self.name = redact(dataset)
        reader, self.digest = open_dataset(dataset)
        self._record = (cache.parent if reader.is_local else spool.folder) / "hashes.jsonl"
        if not reader.is_local:
            require_own(spool.folder)
        self.reader = _reopened(reader.root, reader.proof, self._record, is_local=reader.is_local)
        self.reads_wait = not self.is_local
        if not len(self.reader):
            raise ConfigError(
                "There is nothing to train on", got=f"{dataset} has no image", expected="one at least"
            )
        self._spool = spool
        self._places_path = _places_file(self.reader, cache, name=f"places-{self.digest[:16]}")
        self._places = open_places(self._places_path)

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
        self._places = open_places(self._places_path)

    @property
    def is_local(self) -> bool:
        """Whether the operating system reads the shards."""
        return self.reader.is_local

    @property
    def num_images(self) -> int:
        """How many there are."""
        return len(self)

    def describe(self) -> str:
        """One line for people."""
        where = "" if self.is_local else " on an object store"
        return (
            f"{self.name}: {len(self):,} images in {len(self.shard_sizes):,} shards{where}; resumes exactly"
        )

    def order(self, *, seed: int, window_images: int) -> Order:
        """A full shuffle of local shards, a shuffle by windows of remote ones."""
        if self.is_local:
            return FullShuffle(len(self), seed=seed)
        return WindowShuffle(self.shard_sizes, seed=seed, window_images=window_images)

    def spooled_bytes(self, window_images: int) -> int:
        """What the shards of two windows take in the spool: they are in use together where one ends."""
        if self.is_local:
            return 0
        sizes = sorted((shard.num_bytes for shard in self.reader.shards), reverse=True)
        mean_images = max(1, len(self) // len(sizes))
        return sum(sizes[: 2 * (-(-window_images // mean_images) + 1)])

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


def require_spooled(needed: int, spool: Spool, *, window_images: int) -> None:
    """See that a spool holds what is in use together; raises a ConfigError where it does not."""
    if needed > spool.max_bytes:
        raise ConfigError(
            "The shards of two windows do not fit into data.spool_bytes",
            got=f"{spool.max_bytes:,} bytes",
            expected=f"at least {needed:,} for data.window_images {window_images:,}",
            remedy="Raise the one or lower the other",
        )


def _reopened(root: str, proof: Mapping[str, str], record: Path, *, is_local: bool) -> ShardReader:
    max_open = _MAX_OPEN if is_local else _MAX_OPEN_SPOOLED
    return ShardReader(root, max_open=max_open, proof=proof, record=record)


def _places_file(reader: ShardReader, cache: Path, *, name: str) -> Path:
    """The file of places: `NAME-SHA256.npy`; one that is not what its name says is made anew."""
    with reader.hashes.alone(str(cache / name)):
        if (kept := kept_file(cache, name, "npy", reader.hashes)) is not None:
            return kept
        ranges = (reader.image_ranges(number) for number in range(len(reader.shards)))
        return write_places(cache, name, ranges, num_images=len(reader), hashes=reader.hashes)
