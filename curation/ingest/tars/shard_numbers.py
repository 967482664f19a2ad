"""Numbered files of which some are not there: `00000-of-00003`, `00002-of-00003`, and no `00001-of-00003`."""

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from curation import storage
from curation.ingest.problems import Findings, Problem
from curation.ingest.rows import as_text

_NUM_NAMED = 10
_OF = re.compile(r"(?<!\d)(\d{1,7})[-_.]of[-_.](\d{1,7})(?!\d)")
_COUNTED = re.compile(r"(?<!\d)(\d{4,7})(?=\.[A-Za-z][A-Za-z0-9.]*$)")

_Name = tuple[str, str, int]  # what stands before the number, how many there are ("": not told), its digits


def with_gaps_told(
    files: Iterable[storage.FileInfo], findings: Findings, *, are_all: bool
) -> Iterator[storage.FileInfo]:
    """The files; behind the last, numbers that are not among them are noted.

    Names that say how many there are promise every number. Others do so between their first and last where
    more numbers are there than not.

    Args:
        are_all: whether these are all the files of a folder: then those too whose names tell no total.
    """
    found: dict[_Name, set[int]] = {}
    paths: dict[_Name, str] = {}
    for file in files:
        yield file
        if named := _number(file.key, are_all=are_all):
            name, number = named
            found.setdefault(name, set()).add(number)
            paths.setdefault(name, file.path)
    for name, numbers in found.items():
        first, stop = _promised(name[1], numbers)
        num_missing = stop - first - sum(first <= number < stop for number in numbers)
        if not num_missing or (not name[1] and num_missing >= len(numbers)):
            continue
        missing = islice((n for n in range(first, stop) if n not in numbers), _NUM_NAMED)
        told = ", ".join(f"{number:0{name[2]}d}" for number in missing)
        more = f" and {num_missing - _NUM_NAMED:,} more" if num_missing > _NUM_NAMED else ""
        detail = f"of {stop - first:,} numbered files {num_missing:,} are not there: {told}{more}"
        findings.notes.append(Problem(as_text(paths[name]), "missing_files", detail))


def _number(key: str, *, are_all: bool) -> tuple[_Name, int] | None:
    """A file's number, and the name that the files of its set have in common, whatever their suffixes."""
    start = key.rfind("/") + 1
    if told := _OF.search(key, start):
        return (key[: told.start()], told[2], len(told[1])), int(told[1])
    if are_all and (told := _COUNTED.search(key, start)):
        return (key[: told.start()], "", len(told[1])), int(told[1])
    return None


def _promised(total: str, numbers: set[int]) -> tuple[int, int]:
    """The first number that there should be, and the one behind the last."""
    if not total:
        return min(numbers), max(numbers) + 1
    # Some count from one: then the last is there, and no zero.
    first = int(0 not in numbers and int(total) in numbers)
    return first, first + int(total)
