"""Which tars a pattern names, and which of their members are images: of anybody's WebDataset."""

import fnmatch
import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import braceexpand

from curation import storage
from curation.errors import ConfigError, SourceError
from curation.hidden import is_hidden
from curation.printed import redact

IMAGE_EXTENSIONS = (
    "jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif",
)  # fmt: skip
Kind = Literal["file", "store", "http", "pipe"]
_TAR = re.compile(r"\.(?:tar(?:\.(?:gz|bz2|xz|zst))?|tgz|tbz2?|txz)$", re.IGNORECASE)
_WILD = re.compile(r"[*?[]")
_PATTERN = re.compile(r"[*?[{]")


def names_tars(path: str) -> bool:
    """Whether a path of a config means tars, and not the run directory or manifest of a dataset of lvd's."""
    match kind_of(path):
        case "pipe":
            return True
        case "http":
            return not path.partition("?")[0].endswith(".json")
        case "file" if storage.is_dir(path):
            return False
        case _:
            return bool(_TAR.search(path) or _PATTERN.search(path))


def kind_of(path: str) -> Kind:
    """Who reads a path.

    Raises:
        ConfigError: for a scheme that is not read.
    """
    head = path[:8].lower()
    if head.startswith("pipe:"):
        return "pipe"
    if head.startswith(("http://", "https://")):
        return "http"
    return "file" if storage.is_local(path) else "store"


def is_plain(path: str) -> bool:
    """Whether a tar lies here and is not compressed, so that any of its members can be read by itself."""
    return kind_of(path) == "file" and path.lower().endswith(".tar")


def list_tars(pattern: str, *, allow_pipe: bool) -> list[str]:
    """The tars that a pattern names: braces in their order, what a wildcard stands for sorted by name.

    Raises:
        ConfigError: for a command that is not allowed, or a pattern that cannot be understood.
        SourceError: when it names nothing, or a file that is not there.
    """
    try:
        expanded = list(dict.fromkeys(braceexpand.braceexpand(pattern)))
    except ValueError as error:
        raise ConfigError("data.path has braces that do not pair", got=f"{pattern} ({error})") from error
    found = [tar for one in expanded for tar in _listed(one, allow_pipe=allow_pipe)]
    if not found:
        raise SourceError(
            "There are no tars to train on",
            got=f"nothing that {redact(pattern)} names",
            expected="one file at least",
            remedy="Check data.path; for a shell a pattern stands in quotes: "
            "--set 'data.path=/data/in-{00..09}.tar'",
        )
    return list(dict.fromkeys(found))


def _listed(path: str, *, allow_pipe: bool) -> Sequence[str]:
    match kind_of(path):
        case "pipe":
            if not allow_pipe:
                raise ConfigError(
                    "data.path would run a command in a shell, and that is not allowed",
                    got=f"the command {path[len('pipe:') :].strip()!r}",
                    expected="a file, a pattern or a URL",
                    remedy="If the command is yours, set data.allow_pipe: true",
                )
            return [path]
        case "http":
            return [path]
        case "file":
            return _listed_here(str(storage.local_path(path)))
        case "store":
            return _listed_on_store(path)


def _listed_here(path: str) -> Sequence[str]:
    if Path(path).is_file():
        return [path]
    if _WILD.search(path):
        names = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 — the pattern may be absolute
        return [name for name in names if not is_hidden(Path(name).name) and Path(name).is_file()]
    raise SourceError(
        f"There is no tar {path}",
        expected="a file for each name of data.path",
        remedy="Check the path, and the numbers in its braces",
    )


def _listed_on_store(path: str) -> Sequence[str]:
    folder, _, name = path.rpartition("/")
    if not _WILD.search(path):
        return [path]
    if _WILD.search(folder):
        raise ConfigError(
            "On an object store a wildcard may stand in the last part of a path alone",
            got=redact(path),
            remedy="Name the folders, in braces where they are several",
        )
    names = fnmatch.filter(storage.list_names(folder), name)
    return [storage.join(folder, one) for one in sorted(names) if not is_hidden(one)]


def is_image(name: str, extensions: Sequence[str]) -> bool:
    """Whether a member of a tar is an image, by its name."""
    return not is_hidden(name) and extension_of(name) in extensions


def extension_of(name: str) -> str:
    """What follows the first dot of a member's name, in lower case; empty where there is none.

    Source: github.com/webdataset/webdataset, `tariterators.base_plus_ext`.
    """
    stem, _, extension = name.rpartition("/")[2].partition(".")
    return extension.lower() if stem else ""
