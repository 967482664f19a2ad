"""Where images come from: the configs of the sources, and the files that each of them holds."""

import fnmatch
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

from braceexpand import braceexpand
from pydantic import BaseModel, ConfigDict, Field

from curation import storage
from curation.errors import ConfigError, SourceError
from curation.ingest.sidecars import DEFAULT_EXTENSIONS, SidecarRule

Extension = Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]
# The compressed ones are listed, so that each is reported: they have no byte ranges to index.
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")


class FolderSource(BaseModel):
    """A folder of image files, with everything below it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["folder"] = "folder"
    path: str = Field(description="folder: a local path or a URL such as s3://bucket/prefix", min_length=1)
    key_prefix: str = Field("", description="put before every key, to tell the sources of a pool apart")
    sidecars: tuple[Extension, ...] = Field(
        DEFAULT_EXTENSIONS, description="extensions (lower case, no dot) of files that accompany an image"
    )
    max_sidecar_bytes: int = Field(
        16 << 20, description="bytes; a larger file is no sidecar but a file of its own", ge=0
    )

    @property
    def sidecar_rule(self) -> SidecarRule:
        """What counts as a sidecar."""
        return SidecarRule(self.sidecars, self.max_sidecar_bytes)


class TarSource(BaseModel):
    """WebDataset tars: a folder that holds them, one tar, or a pattern of braces and wildcards."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["tars"] = "tars"
    path: str = Field(
        description="folder, tar or pattern, local or URL: s3://bucket/{000000..000099}.tar, /data/*.tar",
        min_length=1,
    )
    key_prefix: str = Field("", description="put before every key, to tell the sources of a pool apart")
    max_member_bytes: int = Field(
        256 << 20, description="bytes; a larger member is never read, its row says file_too_large", ge=1
    )
    sidecars: tuple[Extension, ...] = Field(
        DEFAULT_EXTENSIONS, description="extensions (lower case, no dot) of members that accompany an image"
    )
    max_sidecar_bytes: int = Field(
        16 << 20, description="bytes; a larger member is no sidecar but a member of its own", ge=0
    )

    @property
    def sidecar_rule(self) -> SidecarRule:
        """What counts as a sidecar."""
        return SidecarRule(self.sidecars, self.max_sidecar_bytes)


Source = Annotated[FolderSource | TarSource, Field(discriminator="kind")]


def list_units(source: Source) -> Iterator[storage.FileInfo]:
    """Stream what there is to read, in key order: the files of a folder, or the tars.

    Beside tars, files with other extensions are left alone: indexes and lists commonly lie there.

    Raises:
        SourceError: when there is nothing at the path, or nothing of this kind in it.
        ConfigError: for a path that cannot be meant.
    """
    match source:
        case FolderSource():
            storage.require_dir(source.path)
            units = storage.list_files(source.path)
        case TarSource():
            units = _list_tars(source.path)
    empty = True
    try:
        for unit in units:
            empty = False
            yield unit
    except OSError as error:
        raise SourceError(
            f"A source cannot be listed: {storage.redact(source.path)}",
            got=error,
            remedy="Check the permissions of the folder and what lies in it",
        ) from error
    if empty:
        raise SourceError(
            f"A source is empty: {storage.redact(source.path)}",
            got="no files" if source.kind == "folder" else f"no file that ends in {', '.join(TAR_SUFFIXES)}",
            expected="at least one",
            remedy="Check the path and the kind of the source in the config",
        )


def _list_tars(path: str) -> Iterator[storage.FileInfo]:
    # A path that exists is meant as it stands, brackets and all.
    if storage.is_dir(path):
        yield from (f for f in storage.list_files(path) if f.key.lower().endswith(TAR_SUFFIXES))
    elif storage.exists(path):
        yield storage.stat(path)
    elif any(c in path for c in "{*?["):
        yield from _expand_pattern(path)
    else:
        raise _missing(path)


def _expand_pattern(pattern: str) -> Iterator[storage.FileInfo]:
    """The tars that a pattern names, keyed relative to the folder before its first brace or wildcard."""
    first = min(pattern.index(c) for c in "{*?[" if c in pattern)
    root = pattern[: pattern.rfind("/", 0, first) + 1]
    try:
        names = sorted({name.removeprefix(root) for name in braceexpand(pattern, escape=False)})
    except ValueError as error:
        raise ConfigError(
            "A pattern of tars has unbalanced braces",
            got=storage.redact(pattern),
            expected="shard-{000..099}.tar",
        ) from error
    found: dict[str, storage.FileInfo] = {}
    for name in names:
        if any(c in name for c in "*?["):
            found.update((f.key, f) for f in _match_wildcards(root, name))
        elif storage.exists(root + name):
            found[name] = replace(storage.stat(root + name), key=name)
        else:
            raise _missing(root + name)
    if not found:
        raise _missing(pattern)
    for key in sorted(found, key=lambda k: k.split("/")):
        yield found[key]


def _match_wildcards(root: str, name: str) -> Iterator[storage.FileInfo]:
    """Files below `root` that match `name`, folder by folder; a wildcard never spans a slash."""
    wanted = name.split("/")
    num_literal = next(i for i, part in enumerate(wanted) if any(c in part for c in "*?["))
    below = "".join(f"{part}/" for part in wanted[:num_literal])
    top = root + below or "."
    if not storage.is_dir(top):
        raise _missing(top)
    for file in storage.list_files(top):
        parts = file.key.split("/")
        if len(parts) == len(wanted) - num_literal and all(
            map(fnmatch.fnmatchcase, parts, wanted[num_literal:])
        ):
            yield replace(file, key=below + file.key)


def _missing(path: str) -> SourceError:
    return SourceError(
        f"A source does not exist: {storage.redact(path)}",
        got="nothing there",
        expected="a folder, a tar, or a pattern such as shard-{000000..000099}.tar",
        remedy="Check the path in the config",
    )
