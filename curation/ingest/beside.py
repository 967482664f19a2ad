"""What lies beside the files of a source's kind: passed over and, but for what is usual, counted."""

from curation.ingest.problems import Findings, Problem
from curation.ingest.rows import as_text
from curation.ingest.sidecars import DEFAULT_EXTENSIONS

_NUM_NAMED = 3
_PACKED = (".gz", ".bz2", ".xz", ".zst")
# What people and tools put beside tars, tables, lists and crawls, and what never holds images.
_EXTENSIONS = frozenset(
    (
        *DEFAULT_EXTENSIONS, "md", "rst", "html", "pdf", "log", "py", "sh", "ipynb", "toml",
        "md5", "sha1", "sha256", "sha512", "crc", "crc32", "sfv", "sum", "asc", "sig",
        "idx", "index", "cdx", "cdxj", "paths", "stats", "lock",
    )
)  # fmt: skip
_NAMES = frozenset(
    (
        "readme", "license", "licence", "copying", "notice", "authors", "changelog", "citation", "makefile",
        "manifest", "checksums", "md5sums", "sha1sums", "sha256sums", "sha512sums", "_success",
        "_metadata", "_common_metadata", ".gitattributes", ".gitignore", "index",
    )
)  # fmt: skip
_TABLES = frozenset(("parquet", "pq", "csv", "tsv", "jsonl", "arrow", "feather"))


class OtherFiles:
    """Counts the files that a source passes over since they are of no kind that it takes."""

    def __init__(self) -> None:
        self._num, self._first = 0, list[str]()
        self._taken: set[str] = set()  # without their extensions
        self._tables: list[str] = []  # of which those of a taken file (`0.parquet` of `0.tar`) are its own

    def take(self, key: str) -> None:
        """A file of the source's kind."""
        self._taken.add(_plain(key))

    def pass_over(self, key: str) -> None:
        """A file of another kind, which is not hidden."""
        name = key.rpartition("/")[2].lower()
        for packed in _PACKED:
            name = name.removesuffix(packed)
        stem, _, extension = name.rpartition(".")
        if extension in _EXTENSIONS or name in _NAMES or name.partition(".")[0] in _NAMES:
            return
        if stem and extension in _TABLES:
            self._tables.append(key)
        else:
            self._count(key)

    def note(self, path: str, findings: Findings) -> None:
        """Say how many there were, once."""
        for key in self._tables:
            if _plain(key) not in self._taken:
                self._count(key)
        if not self._num:
            return
        names = ", ".join(as_text(key)[-200:] for key in sorted(self._first))
        more = f" and {self._num - len(self._first):,} more" if self._num > len(self._first) else ""
        detail = (
            f"{self._num:,} files beside the source's own are of other kinds, and not read: {names}{more}"
        )
        findings.notes.append(Problem(as_text(path), "other_files", detail))

    def _count(self, key: str) -> None:
        self._num += 1
        if len(self._first) < _NUM_NAMED:
            self._first.append(key)


def _plain(key: str) -> str:
    folder, slash, name = key.rpartition("/")
    return folder + slash + name.partition(".")[0]
