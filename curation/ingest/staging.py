"""Images whose bytes have no ranges, or rot, are written into plain tars that every later stage reads.

A unit (a file, or some rows of one) is staged by itself: its images go, in order, into tars of bounded size,
a member for each image and each sidecar, and into rows of `schema.IMAGES` that point at them. A row's `path`
is then relative to the run directory; ingest puts that in front. Equal images give equal tars.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from curation.ingest.rows import ImageRow, as_text, rows_table
from curation.ingest.sidecars import Sidecar, StoredFile
from curation.tar_headers import BLOCK_BYTES, padded, tar_bytes, tar_header

# A tar is closed at this size (bytes): small enough to fetch, large enough to be few.
MAX_TAR_BYTES = 1 << 30
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


@dataclass(frozen=True, slots=True)
class StagedImage:
    """One image on its way into a tar: its bytes, or the reason why there are none.

    Bytes that have a range of their own (a `StoredFile`) stay there, and only the sidecars are written.
    """

    key: str
    uri: str  # for people: where it came from
    data: bytes | StoredFile | None
    reason: str | None = None
    sidecars: Mapping[str, bytes] = field(default_factory=dict)  # name within the sample → bytes
    version: str | None = None  # of the file with the bytes; None: as of the unit


@dataclass(frozen=True, slots=True)
class Place:
    """Where a unit's tars are written now, and where they will lie."""

    out: Path  # a fresh local folder
    folder: str  # relative to the run directory, once published
    tell: Callable[[int], None] | None = None  # called with the number of rows that are done


def stage_images(
    images: Iterable[StagedImage | ImageRow],
    place: Place,
    *,
    version: str,
    max_image_bytes: int,
    max_tar_bytes: int = MAX_TAR_BYTES,
) -> pa.Table:
    """Write a stream of images into tars, `000000.tar` and so on.

    Args:
        images: in the order of the rows to be; a row that was staged before (an `ImageRow`) is taken as it
            is. Each is let go once it is written.
        version: of the file that the images come from.
        max_image_bytes: a larger image is not kept; its row says `file_too_large`.
        max_tar_bytes: a tar is closed before it would be larger, unless a single sample is.

    Returns:
        Rows of `schema.IMAGES`, one for every image, in order.
    """
    rows = []
    with _Tars(place, max_tar_bytes) as tars:
        for number, image in enumerate(images):
            if place.tell is not None:
                place.tell(number)
            if isinstance(image, ImageRow):
                rows.append(image)
            else:
                rows.append(_staged(image, number, tars, version=version, max_bytes=max_image_bytes))
    return rows_table(rows)


def _staged(image: StagedImage, number: int, tars: "_Tars", *, version: str, max_bytes: int) -> ImageRow:
    data, reason = image.data, image.reason
    num_bytes = data.num_bytes if isinstance(data, StoredFile) else len(data or b"")
    if num_bytes > max_bytes:
        data, reason = None, "file_too_large"
    assert (data is None) == (reason is not None), f"{image.key}: bytes or a reason, and not both"
    stored, sidecars = tars.write(f"{number:08d}", image.key, data, image.sidecars)
    return ImageRow(
        key=image.key,
        uri=image.uri,
        path=stored.path,
        offset=stored.offset,
        num_bytes=stored.num_bytes,
        version=image.version or version,
        sidecars=sidecars,
        reason=reason,
    )


class _Tars:
    """Writes samples into one tar after another."""

    def __init__(self, place: Place, max_bytes: int) -> None:
        self._place, self._max_bytes = place, max_bytes
        self._tar: BinaryIO | None = None
        self._num_tars = 0

    def __enter__(self) -> "_Tars":
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._tar is not None:
            with self._tar as tar:
                tar.write(bytes(tar_bytes(tar.tell()) - tar.tell()))
            self._tar = None

    def write(
        self, number: str, key: str, data: bytes | StoredFile | None, sidecars: Mapping[str, bytes]
    ) -> tuple[StoredFile, list[Sidecar]]:
        """Write one sample; returns where its image lies (nowhere: no bytes at 0), and its sidecars."""
        members = [(f"{number}.{_extension(key)}", data)] if isinstance(data, bytes) else []
        members += [
            (f"{number}.{i}.{_extension(name)}", content)
            for i, (name, content) in enumerate(sorted(sidecars.items()))
        ]
        tar = self._tar_for(sum(2 * BLOCK_BYTES + len(content) for _, content in members))
        path = f"{self._place.folder}/{self._num_tars - 1:06d}.tar"
        stored = [_add(tar, name, content, path) for name, content in members]
        match data:
            case bytes():
                image = stored.pop(0)
            case StoredFile():
                image = data
            case _:
                image = StoredFile(number, path, 0, 0)
        return image, list(zip(sorted(sidecars), stored, strict=True))

    def _tar_for(self, num_bytes: int) -> BinaryIO:
        if self._tar is not None and self._tar.tell() and self._tar.tell() + num_bytes > self._max_bytes:
            self._close()
        if self._tar is None:
            self._tar = (self._place.out / f"{self._num_tars:06d}.tar").open("wb")
            self._num_tars += 1
        return self._tar


def _add(tar: BinaryIO, name: str, data: bytes, path: str) -> StoredFile:
    tar.write(tar_header(name, len(data)))
    offset = tar.tell()
    tar.write(data)
    tar.write(bytes(padded(len(data)) - len(data)))
    return StoredFile(name, path, offset, len(data))


def _extension(name: str) -> str:
    """What the name ends in, for those who look into the tar; `bin` where that is not plain."""
    extension = as_text(name).rpartition(".")[2][-8:]
    return extension if extension and _PLAIN.issuperset(extension) else "bin"
