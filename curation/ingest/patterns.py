"""Whether a file's path matches a pattern of wildcards, part by part."""

import fnmatch
from collections.abc import Sequence

from curation.hidden import is_hidden

_ANY_FOLDERS = "**"


def split_pattern(pattern: str) -> list[str]:
    """A pattern's parts, a last `**` as what it stands for: any file in any folder."""
    parts = pattern.split("/")
    return [*parts, "*"] if parts[-1] == _ANY_FOLDERS else parts


def asks_for_hidden(wanted: Sequence[str]) -> bool:
    """Whether some part of a pattern names what is hidden."""
    return any(_names_hidden(part, is_folder=i + 1 < len(wanted)) for i, part in enumerate(wanted))


def matches(parts: Sequence[str], wanted: Sequence[str], *, take_hidden: bool = False) -> bool:
    """Whether a path is one that a pattern names.

    A wildcard spans no slash; `**` stands for any number of folders, none too. What is hidden is matched by a
    part that is hidden itself, as `.s` and `._*.tar`, and by no other.

    Args:
        parts: of the path: folders, and the name of a file.
        wanted: of the pattern (`split_pattern`).
        take_hidden: whether any part matches what is hidden.
    """
    reached = _with_skipped({0}, wanted)  # parts of the pattern that the next part of the path may match
    for i, part in enumerate(parts):
        is_folder = i + 1 < len(parts)
        is_shown = take_hidden or not _names_hidden(part, is_folder=is_folder)
        following: set[int] = set()
        for at in reached:
            if at == len(wanted):
                continue
            if wanted[at] == _ANY_FOLDERS:
                following |= {at} if is_folder and is_shown else set()
            elif fnmatch.fnmatchcase(part, wanted[at]) and (
                is_shown or _names_hidden(wanted[at], is_folder=is_folder)
            ):
                following.add(at + 1)
        reached = _with_skipped(following, wanted)
    return len(wanted) in reached


def _with_skipped(reached: set[int], wanted: Sequence[str]) -> set[int]:
    """With those behind each `**`, which may stand for no folder."""
    more = set(reached)
    for at, part in enumerate(wanted):
        if at in more and part == _ANY_FOLDERS:
            more.add(at + 1)
    return more


def _names_hidden(part: str, *, is_folder: bool) -> bool:
    return is_hidden(f"{part}/" if is_folder else part)
