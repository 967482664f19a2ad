"""What can be wrong with a source without ending the run."""

from dataclasses import dataclass
from typing import Literal

# Bytes that may hold images and could not be read: the run ends degraded and names them.
Unread = Literal[
    "empty_file",  # zero bytes named .tar
    "not_a_tar",
    "compressed",  # .tar.gz and its kin have no byte ranges
    "truncated",  # the file ends inside a header or a member
    "bad_header",  # what follows a damaged header cannot be found
    "no_end",  # every member is whole, but the end-of-archive mark is missing: was the writer killed?
    "unreadable",  # the file system or the object store failed
]
# Nothing is missing, but the person who made the archive may want to know.
Oddity = Literal[
    "empty_archive",
    "concatenated",  # another archive follows the end-of-archive mark; it was read too
    "trailing_data",  # bytes after the end-of-archive mark that are no archive
    "not_regular",  # links, devices, pipes, sparse files: never read
    "duplicate_name",
    "unsorted",  # the members of a sample are not adjacent
]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding about one file of a source."""

    path: str
    what: Unread | Oddity
    detail: str
    offset: int | None = None  # of the first byte concerned
