"""An imagefolder: pictures in folders that name their labels, or beside a `metadata` file.

The pictures have ranges and stay where they are; only the labels and metadata, as json, are staged. A unit is
a folder with the pictures that lie directly in it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from curation import storage
from curation.ingest.links import may_accompany
from curation.ingest.problems import Findings, Problem
from curation.ingest.rows import as_text
from curation.ingest.sidecars import StoredFile
from curation.ingest.sources import HuggingFaceSource
from curation.ingest.staging import StagedImage
from curation.ingest.tables.image_metadata import FILE_NAME, Row, note_lost_folders, rows_of
from curation.ingest.tables.row_values import row_sidecars
from curation.ingest.walk import WalkRules, walk_source

_IMAGES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif",
    ".tiff", ".avif",
)  # fmt: skip
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def is_image_name(key: str) -> bool:
    """Whether a file's extension is one that an imagefolder takes."""
    return key.lower().endswith(_IMAGES)


def list_image_folders(
    source: HuggingFaceSource, findings: Findings, *, run_dir: str | None = None
) -> list[storage.FileInfo]:
    """The folders of a source that hold pictures; a folder's version changes with each of its files.

    Metadata that a link would fetch from elsewhere, that lie beside others, or that name pictures in folders
    without any, are noted in `findings`; what the walk finds was told when the kind of the data set was
    looked for.

    Raises:
        ConfigError: when no row of the metadata has a `file_name`.
    """
    root = source.path
    hashes: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    metadata: dict[str, storage.FileInfo] = {}
    rules = WalkRules(source.links, run_dir=run_dir)
    for file in walk_source(root, rules, findings=Findings()):
        folder, _, name = file.key.rpartition("/")
        if name in METADATA:
            _take_metadata(file, metadata, source, findings)
        elif is_image_name(name):
            _take(hashes.setdefault(folder, hashlib.sha256()), file)
            sizes[folder] = sizes.get(folder, 0) + file.num_bytes
    found, used = [], dict[storage.FileInfo, None]()
    for folder in sorted(hashes, key=lambda name: name.split("/")):
        beside = next((metadata[above] for above in _upwards(folder) if above in metadata), None)
        if beside is not None:
            used[beside] = None
        path = storage.join(root, folder) if folder else root
        found.append(storage.FileInfo(path, f"{folder}/", sizes[folder], _version(hashes[folder], beside)))
    for file in used:
        note_lost_folders(file, hashes.keys(), findings)
    return found


def _take_metadata(
    file: storage.FileInfo,
    metadata: dict[str, storage.FileInfo],
    source: HuggingFaceSource,
    findings: Findings,
) -> None:
    """Add a metadata file to those of folders, if it may be read."""
    if not may_accompany(file, source.path, source.links):
        detail = "metadata that a link brings from out of the source's folder are left out (links.sidecars)"
        findings.notes.append(Problem(as_text(file.path), "link_outside", detail))
    elif (first := metadata.setdefault(file.key.rpartition("/")[0], file)) is not file:
        detail = f"left out: {first.key.rpartition('/')[2]} lies beside it, and is read"
        findings.notes.append(Problem(file.path, "other_metadata", detail))


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
    digest: str = pictures.hexdigest()
    return digest[:32]


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

    Raises:
        ConfigError: when no row of the metadata has a `file_name`.
    """
    try:
        files = list(_pictures_in(folder, source))
        metadata = _metadata_file(source, folder)
    except OSError as error:
        findings.problems.append(Problem(folder.path, "unreadable", str(error)))
        return
    rows = rows_of(metadata, folder.key.strip("/"), findings=findings) if metadata else None
    if metadata is not None and rows is not None:
        _note_unmatched(metadata, {folder.key.removeprefix("/") + file.key for file in files}, rows, findings)
    label = folder.key.rstrip("/").rpartition("/")[2]
    for file in files:
        key = folder.key.removeprefix("/") + file.key
        row = {"label": label} if rows is None and label else _chosen((rows or {}).get(key), source)
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


def _chosen(row: Row | None, source: HuggingFaceSource) -> Row | None:
    """The columns of a row that travel along."""
    if row is None:
        return None
    names = source.columns if source.columns is not None else [name for name in row if name != FILE_NAME]
    return {name: row.get(name) for name in names}


def _note_unmatched(
    metadata: storage.FileInfo, pictures: set[str], rows: Mapping[str, Row], findings: Findings
) -> None:
    for lost, what in (
        (rows.keys() - pictures, "rows name pictures that are not there"),
        (pictures - rows.keys(), "pictures have no row"),
    ):
        if lost:
            detail = f"{len(lost)} {what}, such as {as_text(min(lost))}"
            findings.notes.append(Problem(metadata.path, "unmatched", detail))
