"""An imagefolder: pictures in folders that name their labels, or beside a `metadata` file.

The pictures have ranges and stay where they are; only the labels and metadata, as json, are staged. A unit is
a folder with the pictures that lie directly in it.
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow.parquet as pq

from curation import storage
from curation.errors import ConfigError
from curation.ingest.problems import Findings, Problem
from curation.ingest.row_values import read_values, row_sidecars
from curation.ingest.rows import as_text
from curation.ingest.sidecars import StoredFile
from curation.ingest.sources import HuggingFaceSource
from curation.ingest.staging import StagedImage
from curation.ingest.table_images import READING_ERRORS, reading_problem

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


def imagefolder_images(
    folder: storage.FileInfo, source: HuggingFaceSource, *, findings: Findings
) -> Iterator[StagedImage]:
    """Stream the pictures of one folder by name, each with the row of its metadata, or else its label.

    Args:
        folder: as `list_image_folders` has it.
        source: what it belongs to.
        findings: what of the metadata could not be read, or is left out, is added here.

    Raises:
        ConfigError: when the metadata have no column `file_name`.
    """
    files = [f for f in storage.list_files(folder.path) if "/" not in f.key and is_image_name(f.key)]
    described = _metadata(folder, source, findings)
    label = folder.key.rstrip("/").rpartition("/")[2]
    for file in files:
        key = folder.key.removeprefix("/") + file.key
        row = {"label": label} if described is None and label else (described or {}).get(key)
        row = None if source.columns == () else row
        path = as_text(file.path)
        is_readable = path == file.path  # other names cannot be kept in a table in a form that opens the file
        yield StagedImage(
            key=f"{source.key_prefix}{as_text(key)}",
            uri=storage.redact(path),
            data=StoredFile(file.key, path, 0, file.num_bytes) if is_readable else None,
            reason=None if is_readable else "unreadable",
            sidecars=row_sidecars(
                row,
                (folder.path, as_text(file.key)),
                max_bytes=source.max_sidecar_bytes,
                findings=findings,
            ),
            version=file.version,
        )


def _metadata(
    folder: storage.FileInfo, source: HuggingFaceSource, findings: Findings
) -> dict[str, dict[str, Any]] | None:
    """Rows of the metadata by the keys of their pictures, those of this folder alone; None: no metadata."""
    above = folder.key.strip("/")
    while True:
        root = storage.join(source.path, above) if above else source.path
        for name in sorted(storage.list_names(root).intersection(METADATA)):
            rows = _read(storage.join(root, name), findings)
            return _rows_of(rows, f"{above}/" if above else "", folder, source)
        if not above:
            return None
        above = above.rpartition("/")[0]


def _rows_of(
    rows: Iterator[dict[str, Any]], base: str, folder: storage.FileInfo, source: HuggingFaceSource
) -> dict[str, dict[str, Any]]:
    wanted = folder.key.strip("/")
    found = {}
    for row in rows:
        if _FILE_NAME not in row:
            raise ConfigError(
                f"Metadata of {storage.redact(folder.path)} have no column {_FILE_NAME!r}",
                got=as_text(", ".join(map(str, row))),
            )
        key = f"{base}{row[_FILE_NAME]}"
        if key.rpartition("/")[0] == wanted:
            names = source.columns if source.columns is not None else [n for n in row if n != _FILE_NAME]
            found[key] = {name: row.get(name) for name in names}
    return found


def _read(path: str, findings: Findings) -> Iterator[dict[str, Any]]:
    """The rows of a metadata file; damage ends them, and is a finding."""
    num_rows = 0
    try:
        for row in _rows(path, findings):
            yield row
            num_rows += 1
    except csv.Error as error:
        findings.problems.append(Problem(path, "bad_list", f"rows from {num_rows} on: {error}"))
    except READING_ERRORS as error:
        info = storage.FileInfo(path, path, 0, "")
        findings.problems.append(reading_problem(info, error, num_rows))


def _rows(path: str, findings: Findings) -> Iterator[dict[str, Any]]:
    if path.endswith(".parquet"):
        with storage.open_seekable(path) as stream, pq.ParquetFile(stream) as file:
            for batch in file.iter_batches(4096, use_threads=False):
                columns = [read_values(column) for column in batch.columns]
                yield from (
                    dict(zip(batch.schema.names, items, strict=True)) for items in zip(*columns, strict=True)
                )
        return
    # Names of files may be other bytes than UTF-8, and so are they in a listing.
    with (
        storage.open_stream(path) as stream,
        io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="") as text,
    ):
        if path.endswith(".csv"):
            yield from csv.DictReader(text)
        else:
            yield from _json_rows(text, path, findings)


def _json_rows(lines: Iterable[str], path: str, findings: Findings) -> Iterator[dict[str, Any]]:
    num_odd = 0
    for line in lines:
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            row = line
        if isinstance(row, dict):
            yield row
        else:
            num_odd += row is not None
    if num_odd:
        findings.notes.append(Problem(path, "odd_sidecar", f"{num_odd} lines are no JSON objects"))
