"""What can be wrong with a source without ending the run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from curation.printed import redact, redact_url, visible

# Bytes that may hold images and could not be read: the run ends degraded and names them.
Unread = Literal[
    "empty_file",  # zero bytes where a tar or another container was promised
    "not_a_tar",
    "compressed",  # a compressed tar that is named as a plain one: it has no byte ranges
    "unpacks_too_large",  # a compressed tar, or a piece of a table, that comes to more than the caps: a bomb?
    "not_parquet",
    "not_a_warc",
    "corrupt",  # the file was opened, and its data cannot be read to the end
    "changed",  # another file than the one that was listed lies there now
    "truncated",  # the file ends inside a header or a member
    "bad_header",  # what follows a damaged header cannot be found
    "no_end",  # every member is whole, but the end-of-archive mark is missing: was the writer killed?
    "zeros",  # of a tar, where members should be: a crash, or a download that was never finished
    "unreadable",  # the file system or the object store failed
    "dangling_link",  # it leads nowhere: is a disk missing?
    "vanished",  # it went while its folder was listed
    "name_not_utf8",  # of a file with many images: rows have no form of its path that opens it again
    "bad_list",  # a list of URLs cannot be read at all, or not from some place on
]
# Nothing is missing, but the person who made the archive may want to know.
Oddity = Literal[
    "empty_archive",
    "concatenated",  # another archive follows the end-of-archive mark; it was read too
    "trailing_data",  # bytes after the end-of-archive mark that are no archive
    "not_regular",  # links that lead to no member, devices, pipes, sparse files: never read
    "duplicate_name",  # of members, rows and pictures
    "unsorted",  # the members of a sample are not adjacent
    "no_rows",  # lines of a list of URLs that are blank or comments
    "bad_rows",  # of a list or of metadata: each costs itself
    "odd_text",  # of a list that is not UTF-8: the rows stay, with replacement characters
    "long_sidecar",  # left out: longer than the cap, or beyond what all of one image may come to
    "many_links",  # of a web page beyond the cap: left out
    "hidden",  # passed over: see hidden.py
    "other_files",  # beside those of a source's kind, and of no usual sort: see beside.py
    "missing_files",  # of a numbered set: see shard_numbers.py
    "link_ring",  # not followed: leads to a folder that it lies in
    "link_repeated",  # not followed: the folder is listed under another name
    "link_outside",  # not followed: leads out of where links may lead
    "own_output",  # not listed: the folder that the run itself writes
    "odd_name",  # images whose names are not UTF-8, and sidecars, which are left out
    "unmatched",  # metadata of an imagefolder: rows whose picture is not there, and pictures without a row
    "other_metadata",  # of an imagefolder, beside those that are read
    "other_keys",  # images have no vector in a file of vectors, which has other keys
    "paths_alone",  # a column of images names files, and holds no bytes: such files are never opened
    "no_text",  # bytes in a column beside the images: left out of the json
    "no_key",  # of tables' rows: their numbers stand for it
    "empty_table",  # a table or a list without a row
    "image_records",  # of a WARC file: images in records and answers that are not taken
    "long_key",  # of a table's row: its number stands for it; of a tar's member: its digest
    "odd_sidecar",  # left out: holds what JSON has no form for, or cannot be read
]

MAX_NOTES = 20  # of a kind, about rows of one unit


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding about one file of a source."""

    path: str
    what: Unread | Oddity
    detail: str
    offset: int | None = None  # of the first byte concerned

    def __post_init__(self) -> None:
        # It goes into receipts, the manifest and the report.
        object.__setattr__(self, "path", redact_url(self.path))
        object.__setattr__(self, "detail", redact(self.detail))


@dataclass(slots=True)
class Tally:
    """How many of something there were, and what is said of the first."""

    num: int = 0
    first: str = ""

    def add(self, told: str = "") -> None:
        """One more."""
        self.first = self.first if self.num else told
        self.num += 1


def finding_line(found: Mapping[str, Any]) -> str:
    """A finding, as receipts and the manifest keep it, in a line for people."""
    where = found.get("path") or found.get("pool")
    at = f" at byte {found['offset']}" if found.get("offset") is not None else ""
    return visible(f"{where}: {found['what']}{at}: {found['detail']}")


@dataclass(frozen=True, slots=True)
class Findings:
    """What came to light while a unit was read; who reads it adds to the lists, and gives what there is."""

    problems: list[Problem] = field(default_factory=list)  # not read: the run ends degraded and names them
    notes: list[Problem] = field(default_factory=list)  # odd, but nothing is missing
    _num_notes: dict[str, int] = field(default_factory=dict)

    def note(self, problem: Problem) -> None:
        """Take a note about one of many rows: of each kind the first are kept, and the others counted."""
        num = self._num_notes[problem.what] = self._num_notes.get(problem.what, 0) + 1
        if num > MAX_NOTES + 1:
            self.notes.remove(self._more(problem, num - 1))
        self.notes.append(problem if num <= MAX_NOTES else self._more(problem, num))

    def _more(self, problem: Problem, num: int) -> Problem:
        return Problem(problem.path, problem.what, f"{num - MAX_NOTES} more of this kind")
