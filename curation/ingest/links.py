"""Where the links in a source's folder may lead: its config."""

import os

from pydantic import BaseModel, Field

from curation import local_reads, storage
from curation.errors import ConfigError


class LinkConfig(BaseModel, frozen=True, extra="forbid"):
    """Where symbolic links in a source's folder may lead; what is not followed is told."""

    within: str | None = Field(
        None, description="folder that links may not leave, the source's own or one above; null: anywhere"
    )
    sidecars: bool = Field(
        False,
        description="whether a link out of the source's folder, to a file or folder, may bring sidecars: it "
        "puts another's files into the dataset",
    )

    def limit(self) -> str | None:
        """The folder that links may not leave, without links of its own; None: there is none."""
        return None if self.within is None else real_path(self.within.removeprefix("file://"))


def real_path(path: str) -> str:
    """The path without links, as far as it exists."""
    return local_reads.in_time(path, lambda: os.path.realpath(path))


def lies_in(path: str, folder: str) -> bool:
    """Whether a path without links is `folder`, or below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def require_inside(file: storage.FileInfo, links: LinkConfig) -> storage.FileInfo:
    """The file or folder that a source names, if it lies where links may lead.

    Raises:
        ConfigError: when it does not.
    """
    limit = links.limit() if storage.is_local(file.path) else None
    if limit is not None and not lies_in(real_path(str(storage.local_path(file.path))), limit):
        raise ConfigError(
            "A source lies outside of the folder that its links may not leave",
            got=storage.redact(file.path),
            expected=f"a folder or file in {links.within}",
            remedy="Check links.within in the config",
        )
    return file


def may_accompany(file: storage.FileInfo, root: str, links: LinkConfig) -> bool:
    """Whether a file may put its content beside images: none that a link fetches from elsewhere.

    The link may be the file, or a folder that it lies in.
    """
    if not storage.is_local(file.path):
        return True
    target, limit = real_path(str(storage.local_path(file.path))), links.limit()
    if limit is not None and not lies_in(target, limit):
        return False
    return links.sidecars or lies_in(target, real_path(str(storage.local_path(root))))
