"""A folder of image files becomes rows of the `images` table."""

from collections.abc import Iterable, Iterator

import pyarrow as pa

from curation import storage
from curation.ingest.problems import Findings, Problem
from curation.ingest.rows import ImageRow, as_text, rows_table
from curation.ingest.sidecars import StoredFile, left_out_note, pair_sidecars, sample_key
from curation.ingest.source_files import list_units
from curation.ingest.sources import FolderSource


def folder_rows(
    source: FolderSource, max_rows: int, findings: Findings, *, run_dir: str | None = None
) -> Iterator[pa.Table]:
    """Stream a folder as tables of at most `max_rows` rows.

    Every regular file that is not hidden is one row, save the sidecars (`sidecars.py`), which travel with
    their images. A row's key is `key_prefix` and the path below the folder, extension included. Rows come in
    the order of the listing; where files of one sample stand around other names (`a`, `a-1.jpg`, `a.txt`, or
    a folder `a.d` between `a.bmp` and `a.txt`), they come once the last of them has been seen. So no more is
    held than one table and the samples that may still grow.

    Raises:
        SourceError: when the folder cannot be listed, or is empty.
    """
    rows: list[ImageRow] = []
    odd: list[str] = []
    for sample in _samples(list_units(source, findings, run_dir=run_dir)):
        rows.extend(_sample_rows(sample, source, odd, findings))
        while len(rows) >= max_rows:
            yield rows_table(rows[:max_rows])
            del rows[:max_rows]
    if odd:
        detail = f"{len(odd)} names are not UTF-8: no row can have them; rename the files"
        findings.notes.append(Problem(odd[0], "odd_name", detail))
    if rows:
        yield rows_table(rows)


def _samples(files: Iterable[storage.FileInfo]) -> Iterator[list[storage.FileInfo]]:
    """Group a listing by sample key.

    Names that begin with `KEY` and a dot are adjacent in a sorted listing, but for what a name without an
    extension or a folder lets in between; so a short stack of open samples is enough, and a folder of ten
    million files is never held whole.
    """
    stack: list[tuple[str, list[storage.FileInfo]]] = []
    for file in files:
        key = sample_key(file.key)
        while stack and not _may_grow(stack[-1][0], file.key):
            yield stack.pop()[1]
        if stack and stack[-1][0] == key:
            stack[-1][1].append(file)
        else:
            stack.append((key, [file]))
    while stack:
        yield stack.pop()[1]


def _may_grow(key: str, name: str) -> bool:
    """Whether a file of sample `key` can still follow `name` in a sorted listing ("." sorts before "/")."""
    return name.startswith(key) and (len(name) == len(key) or name[len(key)] <= "/")


def _sample_rows(
    sample: list[storage.FileInfo], source: FolderSource, odd: list[str], findings: Findings
) -> Iterator[ImageRow]:
    """The rows of a sample; names that are not UTF-8 are added to `odd`."""
    position = {file.key: i for i, file in enumerate(sample)}
    stored = [StoredFile(file.key, file.path, 0, file.num_bytes) for file in sample]
    found = pair_sidecars(stored, source.sidecar_rule)
    if found.left_out:
        findings.note(left_out_note(as_text(found.left_out[0].path), found.left_out, source.sidecar_rule))
    paired = [*found.images, *((file, []) for file in found.alone)]
    for file, sidecars in sorted(paired, key=lambda pair: position[pair[0].name]):
        path = as_text(file.path)
        odd += [as_text(f.path) for f in (file, *(f for _, f in sidecars)) if as_text(f.path) != f.path]
        yield ImageRow(
            key=source.key_prefix + as_text(file.name),
            uri=storage.redact(path),
            path=path,
            offset=0,
            num_bytes=file.num_bytes,
            version=sample[position[file.name]].version,
            # A name that is not UTF-8 cannot be kept in a table in a form that opens the file again.
            sidecars=[(name, f) for name, f in sidecars if as_text(f.path) == f.path],
            reason=None if path == file.path else "name_not_utf8",
        )
