"""An imagefolder: pictures in folders that name their labels, or beside a `metadata` file.

The pictures have ranges and stay where they are; only the labels and metadata, as json, are staged. A unit is
a folder with the pictures that lie directly in it.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq

from curation import storage
from curation.errors import ConfigError
from curation.ingest.rows import as_text
from curation.ingest.sidecars import StoredFile
from curation.ingest.sources import HuggingFaceSource
from curation.ingest.staging import StagedImage
from curation.ingest.table_images import encode_row

_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jfif")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_FILE_NAME = "file_name"


def is_image_name(key: str) -> bool:
    """Whether a file's extension is one that an imagefolder takes."""
    return key.lower().endswith(_IMAGES)


def list_image_folders(root: str) -> list[storage.FileInfo]:
    """The folders below `root` that hold pictures; a folder's version changes with each of its files."""
    hashes: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    metadata: dict[str, storage.FileInfo] = {}
    for file in storage.list_files(root):
        folder, _, name = file.key.rpartition("/")
        if name in METADATA:
            metadata[folder] = file
        elif is_image_name(name):
            _take(hashes.setdefault(folder, hashlib.sha256()), file)
            sizes[folder] = sizes.get(folder, 0) + file.num_bytes
    found = []
    for folder in sorted(hashes, key=lambda name: name.split("/")):
        if beside := _nearest(metadata, folder):
            _take(hashes[folder], beside)
        path = storage.join(root, folder) if folder else root
        found.append(storage.FileInfo(path, f"{folder}/", sizes[folder], hashes[folder].hexdigest()[:32]))
    return found


def _take(digest: Any, file: storage.FileInfo) -> None:
    digest.update(json.dumps([file.key, file.version]).encode())


def _nearest(metadata: dict[str, storage.FileInfo], folder: str) -> storage.FileInfo | None:
    """The metadata file of a folder, or of the nearest folder above that has one."""
    while folder not in metadata and folder:
        folder = folder.rpartition("/")[0]
    return metadata.get(folder)


def imagefolder_images(folder: storage.FileInfo, source: HuggingFaceSource) -> Iterator[StagedImage]:
    """Stream the pictures of one folder by name, each with the row of its metadata, or else its label.

    Args:
        folder: as `list_image_folders` has it.
        source: what it belongs to.

    Raises:
        ConfigError: when the metadata have no column `file_name`.
    """
    files = [f for f in storage.list_files(folder.path) if "/" not in f.key and is_image_name(f.key)]
    described = _metadata(folder, source)
    label = folder.key.rstrip("/").rpartition("/")[2]
    for file in files:
        key = folder.key.removeprefix("/") + file.key
        row = {"label": label} if described is None and label else (described or {}).get(key)
        path = as_text(file.path)
        is_readable = path == file.path  # other names cannot be kept in a table in a form that opens the file
        yield StagedImage(
            key=f"{source.key_prefix}{as_text(key)}",
            uri=storage.redact(path),
            data=StoredFile(file.key, path, 0, file.num_bytes) if is_readable else None,
            reason=None if is_readable else "unreadable",
            sidecars={} if row is None or source.columns == () else {"json": encode_row(row)},
            version=file.version,
        )


def _metadata(folder: storage.FileInfo, source: HuggingFaceSource) -> dict[str, dict[str, Any]] | None:
    """Rows of the metadata by the keys of their pictures, those of this folder alone; None: no metadata."""
    above = folder.key.strip("/")
    while True:
        root = storage.join(source.path, above) if above else source.path
        for name in sorted(storage.list_names(root).intersection(METADATA)):
            return _rows_of(storage.join(root, name), f"{above}/" if above else "", folder.key, source)
        if not above:
            return None
        above = above.rpartition("/")[0]


def _rows_of(path: str, base: str, folder: str, source: HuggingFaceSource) -> dict[str, dict[str, Any]]:
    wanted = folder.removeprefix("/")
    found = {}
    for row in _read(path):
        if _FILE_NAME not in row:
            raise ConfigError(
                f"{storage.redact(path)} has no column {_FILE_NAME!r}", got=", ".join(map(str, row))
            )
        key = f"{base}{row[_FILE_NAME]}"
        if key.rpartition("/")[0] == wanted.rstrip("/"):
            names = source.columns if source.columns is not None else [n for n in row if n != _FILE_NAME]
            found[key] = {name: row.get(name) for name in names}
    return found


def _read(path: str) -> Iterator[dict[str, Any]]:
    try:
        if path.endswith(".parquet"):
            with storage.open_seekable(path) as stream, pq.ParquetFile(stream) as file:
                for batch in file.iter_batches(4096, use_threads=False):
                    yield from batch.to_pylist()
            return
        with storage.open_stream(path) as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
            if path.endswith(".csv"):
                yield from csv.DictReader(text)
            else:
                yield from (json.loads(line) for line in text if line.strip())
    except (ValueError, csv.Error) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise ConfigError(f"{storage.redact(path)} cannot be read", got=error) from error
