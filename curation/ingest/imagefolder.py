"""An imagefolder: pictures in folders that name their labels, or beside a `metadata` file.

The pictures have ranges and stay where they are; only the labels and metadata, as json, are staged. A unit is
a folder with the pictures that lie directly in it.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, cast

from curation import storage
from curation.errors import ConfigError
from curation.ingest.csv_records import Records
from curation.ingest.links import may_accompany
from curation.ingest.parquet_images import BATCH_ROWS, open_parquet
from curation.ingest.problems import Findings, Problem
from curation.ingest.row_values import read_values, row_sidecars
from curation.ingest.rows import as_text
from curation.ingest.sidecars import StoredFile
from curation.ingest.sources import HuggingFaceSource
from curation.ingest.staging import StagedImage
from curation.ingest.table_images import READING_ERRORS, reading_problem
from curation.ingest.text_lines import Lines, open_text
from curation.ingest.walk import WalkRules, walk_source

_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jfif")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_FILE_NAME = "file_name"


def is_image_name(key: str) -> bool:
    """Whether a file's extension is one that an imagefolder takes."""
    return key.lower().endswith(_IMAGES)


def list_image_folders(source: HuggingFaceSource, findings: Findings) -> list[storage.FileInfo]:
    """The folders of a source that hold pictures; a folder's version changes with each of its files.

    Metadata that a link would fetch from elsewhere are noted in `findings`; what the walk finds was told when
    the kind of the data set was looked for.
    """
    root = source.path
    hashes: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    metadata: dict[str, storage.FileInfo] = {}
    for file in walk_source(root, WalkRules(source.links), findings=Findings()):
        folder, _, name = file.key.rpartition("/")
        if name in METADATA and not may_accompany(file, root, source.links):
            detail = (
                "metadata that a link brings from out of the source's folder are left out (links.sidecars)"
            )
            findings.notes.append(Problem(as_text(file.path), "link_outside", detail))
        elif name in METADATA:
            metadata.setdefault(folder, file)
        elif is_image_name(name):
            _take(hashes.setdefault(folder, hashlib.sha256()), file)
            sizes[folder] = sizes.get(folder, 0) + file.num_bytes
    found = []
    for folder in sorted(hashes, key=lambda name: name.split("/")):
        beside = next((metadata[above] for above in _upwards(folder) if above in metadata), None)
        version = _version(hashes[folder], beside)
        path = storage.join(root, folder) if folder else root
        found.append(storage.FileInfo(path, f"{folder}/", sizes[folder], version))
    return found


def folder_version(source: HuggingFaceSource, folder: storage.FileInfo) -> str:
    """The version that one of the folders of `list_image_folders` has now; no other folder is looked at.

    Raises:
        OSError: when the folder cannot be listed.
    """
    base, digest = folder.key.removeprefix("/"), hashlib.sha256()
    for file in _pictures_in(folder, source):
        _take(digest, replace(file, key=base + file.key))
    return _version(digest, _metadata_file(source, folder))


def _pictures_in(folder: storage.FileInfo, source: HuggingFaceSource) -> Iterator[storage.FileInfo]:
    """The pictures that lie directly in a folder; what else lies there was told when it was listed."""
    rules = WalkRules(source.links, deep=False)
    found = walk_source(folder.path, rules, findings=Findings())
    return (file for file in found if is_image_name(file.key))


def _version(pictures: Any, metadata: storage.FileInfo | None) -> str:
    if metadata is not None:
        _take(pictures, metadata)
    return pictures.hexdigest()[:32]


def _take(digest: Any, file: storage.FileInfo) -> None:
    digest.update(json.dumps([file.key, file.version]).encode())


def _upwards(folder: str) -> Iterator[str]:
    """A folder, and each that it lies in, up to the root, whose name is empty."""
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]
    yield ""


def _metadata_file(source: HuggingFaceSource, folder: storage.FileInfo) -> storage.FileInfo | None:
    """The metadata file of a folder, or of the nearest folder above that has one."""
    for above in _upwards(folder.key.rstrip("/")):
        base = f"{above}/" if above else ""
        for name in METADATA:
            path = storage.join(source.path, base + name)
            if storage.exists(path) and not storage.is_dir(path):
                file = replace(storage.stat(path), key=base + name)
                if may_accompany(file, source.path, source.links):
                    return file
    return None


def imagefolder_images(
    folder: storage.FileInfo, source: HuggingFaceSource, *, findings: Findings
) -> Iterator[StagedImage]:
    """Stream the pictures of one folder by name, each with the row of its metadata, or else its label.

    Args:
        folder: as `list_image_folders` has it.
        source: what it belongs to.
        findings: what could not be read, or is left out of the metadata, is added here.

    Raises:
        ConfigError: when the metadata have no column `file_name`.
    """
    try:
        files = list(_pictures_in(folder, source))
        metadata = _metadata_file(source, folder)
    except OSError as error:
        findings.problems.append(Problem(folder.path, "unreadable", str(error)))
        return
    described = _described(metadata, folder, source, findings) if metadata else None
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
            reason=None if is_readable else "name_not_utf8",
            sidecars=row_sidecars(
                row,
                (folder.path, as_text(file.key)),
                max_bytes=source.max_sidecar_bytes,
                findings=findings,
            ),
            version=file.version,
        )


def _described(
    metadata: storage.FileInfo, folder: storage.FileInfo, source: HuggingFaceSource, findings: Findings
) -> dict[str, dict[str, Any]]:
    """Rows of the metadata by the keys of their pictures, those of this folder alone."""
    base = metadata.key[: metadata.key.rfind("/") + 1]
    wanted = folder.key.strip("/")
    found = {}
    for row in _read(metadata, findings):
        if _FILE_NAME not in row:
            raise ConfigError(
                f"{storage.redact(metadata.path)} has no column {_FILE_NAME!r}",
                got=as_text(", ".join(map(str, row))),
            )
        key = f"{base}{row[_FILE_NAME]}"
        if key.rpartition("/")[0] == wanted:
            names = source.columns if source.columns is not None else [n for n in row if n != _FILE_NAME]
            found[key] = {name: row.get(name) for name in names}
    return found


def _read(file: storage.FileInfo, findings: Findings) -> Iterator[dict[str, Any]]:
    """The rows of a metadata file; damage ends them, and is a finding."""
    num_rows = 0
    try:
        for row in _rows(file.path, findings):
            yield row
            num_rows += 1
    except READING_ERRORS as error:
        findings.problems.append(reading_problem(file, error, num_rows))


def _rows(path: str, findings: Findings) -> Iterator[dict[str, Any]]:
    if path.endswith(".parquet"):
        with open_parquet(path) as file:
            for batch in file.iter_batches(BATCH_ROWS, use_threads=False):
                columns = [read_values(column) for column in batch.columns]
                yield from (
                    dict(zip(batch.schema.names, items, strict=True)) for items in zip(*columns, strict=True)
                )
        return
    # Names of files may be other bytes than UTF-8, and so are they in a listing.
    with storage.open_stream(path) as stream:
        lines = Lines(open_text(cast(io.IOBase, stream)))
        rows = _csv_rows(lines) if path.endswith(".csv") else _json_rows(lines)
        num_odd = 0
        for row in rows:
            if row is None:
                num_odd += 1
            else:
                yield row
    if num_odd:
        detail = f"{num_odd} rows cannot be read: a bad quote, too many or too few fields, or no JSON object"
        findings.notes.append(Problem(path, "bad_rows", detail))


def _csv_rows(lines: Lines) -> Iterator[dict[str, Any] | None]:
    """The rows, None for one that cannot be read; without names of columns there are none."""
    first = next(Records(lines, ","), None)
    header = first.fields if first is not None else []
    for record in Records(lines, ",", header=header):
        if record.fields or record.fault is not None:
            is_whole = record.fault is None and len(record.fields) == len(header)
            yield dict(zip(header, record.fields, strict=True)) if is_whole else None


def _json_rows(lines: Iterable[str]) -> Iterator[dict[str, Any] | None]:
    for line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        yield row if isinstance(row, dict) else None
