"""The files that a source holds, in key order."""

import fnmatch
from collections.abc import Iterator
from dataclasses import replace

from braceexpand import braceexpand

from curation import storage
from curation.errors import ConfigError, SourceError
from curation.ingest.sources import SUFFIXES, FolderSource, Source


def list_units(source: Source) -> Iterator[storage.FileInfo]:
    """Stream the files to read, in key order: all of a folder, or those of the source's kind.

    Beside tars (parquet files, …), files with other extensions are left alone: indexes and lists commonly lie
    there. A file that the path names as it stands is taken whatever its extension.

    Raises:
        SourceError: when there is nothing at the path, or nothing of this kind in it.
        ConfigError: for a path that cannot be meant.
    """
    suffixes = SUFFIXES.get(source.kind, ())
    match source:
        case FolderSource():
            storage.require_dir(source.path)
            units = storage.list_files(source.path)
        case _:
            units = _list_kind(source.path, suffixes)
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
            got=f"no file that ends in {', '.join(suffixes)}" if suffixes else "no files",
            expected="at least one",
            remedy="Check the path and the kind of the source in the config",
        )


def _list_kind(path: str, suffixes: tuple[str, ...]) -> Iterator[storage.FileInfo]:
    # A path that exists is meant as it stands, brackets and all.
    if storage.is_dir(path):
        yield from (f for f in storage.list_files(path) if f.key.lower().endswith(suffixes))
    elif storage.exists(path):
        yield storage.stat(path)
    elif any(c in path for c in "{*?["):
        yield from _expand_pattern(path)
    else:
        raise _missing(path)


def _expand_pattern(pattern: str) -> Iterator[storage.FileInfo]:
    """The files that a pattern names, keyed relative to the folder before its first brace or wildcard."""
    first = min(pattern.index(c) for c in "{*?[" if c in pattern)
    root = pattern[: pattern.rfind("/", 0, first) + 1]
    try:
        names = sorted({name.removeprefix(root) for name in braceexpand(pattern, escape=False)})
    except ValueError as error:
        raise ConfigError(
            "A pattern of files has unbalanced braces",
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
        expected="a folder, a file, or a pattern such as shard-{000000..000099}.tar",
        remedy="Check the path in the config",
    )
