"""A source becomes parts: the units of work, resume and retry."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import pyarrow as pa

from curation import storage
from curation.errors import ConfigError
from curation.ingest.folder import folder_rows
from curation.ingest.problems import Findings, Problem
from curation.ingest.rows import FoundRows, rows_table
from curation.ingest.source_files import list_units, named_in_utf8
from curation.ingest.sources import FolderSource, Source, TarSource
from curation.ingest.tars.tar_index import index_tar

IndexTar = Callable[[storage.FileInfo], FoundRows]
MapUnits = Callable[[IndexTar, Iterable[storage.FileInfo]], Iterable[FoundRows]]


def list_parts(
    source: Source, *, part_rows: int, run_dir: str | None = None, map_units: MapUnits = map
) -> Iterator[FoundRows]:
    """Stream a source as parts of `part_rows` rows, in key order; the last part may be smaller.

    Args:
        map_units: applies a picklable function to every tar and gives the results in order; `map`, or an
            executor's, which lets tars be indexed side by side. Folders do not use it.

    Returns:
        The parts. A finding stands with the part that was being filled when it was made; those left at the
        end, in a part of no rows. The parts do not depend on `map_units`.

    Raises:
        SourceError: when the source does not exist, cannot be listed, or is empty.
        ConfigError: for a path that cannot be meant.
    """
    match source:
        case FolderSource():
            yield from _folder_parts(source, part_rows, run_dir)
        case TarSource():
            found = Findings()
            files = named_in_utf8(list_units(source, found, run_dir=run_dir), found)
            yield from cut_parts(map_units(partial(index_tar, source=source), files), part_rows)
            if found.problems or found.notes:
                yield FoundRows(rows_table([]), found.problems, found.notes)
        case _:
            raise ConfigError(
                f"Sources of kind {source.kind!r} have no byte ranges to list",
                got=source.path,
                remedy="Stage their units first, and cut what that gives into parts (`cut_parts`)",
            )


def _folder_parts(source: FolderSource, part_rows: int, run_dir: str | None) -> Iterator[FoundRows]:
    findings = Findings()
    for table in folder_rows(source, part_rows, findings, run_dir=run_dir):
        yield FoundRows(table, findings.problems[:], findings.notes[:])
        findings.problems.clear()
        findings.notes.clear()
    if findings.problems or findings.notes:
        yield FoundRows(rows_table([]), findings.problems, findings.notes)


def cut_parts(indexes: Iterable[FoundRows], part_rows: int) -> Iterator[FoundRows]:
    """Fill parts from the units in turn: a part may hold many small ones, a large unit many parts."""
    held: list[pa.Table] = []
    problems: list[Problem] = []
    notes: list[Problem] = []
    for index in indexes:
        held.append(index.table)
        problems += index.problems
        notes += index.notes
        if sum(map(len, held)) < part_rows:
            continue
        rows = pa.concat_tables(held)
        num_whole = len(rows) // part_rows * part_rows
        for start in range(0, num_whole, part_rows):
            yield FoundRows(rows.slice(start, part_rows).combine_chunks(), problems, notes)
            problems, notes = [], []
        held = [rows.slice(num_whole)]
    rest = pa.concat_tables(held) if held else None
    if rest is not None and (len(rest) or problems or notes):
        yield FoundRows(rest.combine_chunks(), problems, notes)
