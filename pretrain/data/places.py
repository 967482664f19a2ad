"""Where the bytes of every image lie: one memory-mapped file of 16 bytes an image.

The processes of a machine share it: a shard's own index would have to be loaded again for nearly every read
of a shuffle.
"""

import contextlib
import uuid
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from curation.disk_errors import naming
from curation.hashes import Hashes
from curation.local_files import fsync

_PLACE = np.dtype([("shard", "<i4"), ("num_bytes", "<i4"), ("offset", "<i8")])
Ranges = tuple[Int64[np.ndarray, "n"], Int64[np.ndarray, "n"]]  # first bytes and lengths, within a shard


def kept_file(cache: Path, name: str, suffix: str, hashes: Hashes) -> Path | None:
    """The file `NAME-SHA256.SUFFIX` of a cache; those that are not what their name says are removed."""
    for path in sorted(cache.glob(f"{name}-*.{suffix}")):
        if path.stem == f"{name}-{hashes.sha256(str(path))[:16]}":
            return path
        path.unlink()
    return None


def keep_bytes(cache: Path, name: str, suffix: str, data: bytes, hashes: Hashes) -> Path:
    """Write a file of a cache, whole or not at all, under a name that holds its hash."""
    temp = _temporary(cache, name)
    with naming(temp, num_bytes=len(data)), contextlib.ExitStack() as undo:
        undo.callback(temp.unlink, missing_ok=True)
        temp.write_bytes(data)
        return _publish(temp, cache, name, suffix, hashes)


def write_places(
    cache: Path, name: str, ranges: Iterable[Ranges], *, num_images: int, hashes: Hashes
) -> Path:
    """Write the places of all images, whole or not at all.

    Args:
        cache: the folder; it is made.
        name: what the file's name begins with; its hash follows.
        ranges: of the images of each shard, in the order of the shards.
        num_images: in all shards.
        hashes: remembers the file's own.
    """
    temp = _temporary(cache, name)
    header = {"descr": np.lib.format.dtype_to_descr(_PLACE), "fortran_order": False, "shape": (num_images,)}
    with naming(temp, num_bytes=_PLACE.itemsize * num_images), contextlib.ExitStack() as undo:
        undo.callback(temp.unlink, missing_ok=True)
        # Not through a memory map: on a full disk the kernel ends who writes into one.
        with temp.open("wb") as out:
            np.lib.format.write_array_header_1_0(out, header)
            for number, (offsets, sizes) in enumerate(ranges):
                rows = np.empty(len(offsets), _PLACE)
                rows["shard"], rows["offset"], rows["num_bytes"] = number, offsets, sizes
                out.write(rows.tobytes())
        return _publish(temp, cache, name, "npy", hashes)


def open_places(path: Path) -> np.ndarray:
    """The places of all images: `shard`, `offset` and `num_bytes`."""
    places: np.ndarray = np.load(path, mmap_mode="r")
    return places


def _temporary(cache: Path, name: str) -> Path:
    """A name that nobody else has, in a folder that is there; what a killed process left there is removed."""
    with naming(cache):
        cache.mkdir(parents=True, exist_ok=True)
    for stale in cache.glob(f".{name}.*.tmp"):
        stale.unlink()
    return cache / f".{name}.{uuid.uuid4().hex}.tmp"


def _publish(temp: Path, cache: Path, name: str, suffix: str, hashes: Hashes) -> Path:
    fsync(temp)
    path = cache / f"{name}-{hashes.sha256(str(temp))[:16]}.{suffix}"
    temp.rename(path)
    return path
