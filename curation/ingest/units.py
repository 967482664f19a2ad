"""What a source is staged by: its files, and ranges of rows where a file is large."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import pyarrow as pa

from curation import storage
from curation.ingest.problems import Findings
from curation.ingest.source_files import list_units, named_in_utf8
from curation.ingest.sources import (
    COMPRESSED_TAR_SUFFIXES,
    SUFFIXES,
    FolderSource,
    HuggingFaceSource,
    ParquetSource,
    Source,
    TarSource,
    UrlSource,
)
from curation.ingest.tables.parquet_images import cut_parquet
from curation.ingest.web.url_lists import cut_list

# What is lost when a worker dies, and what one worker writes at a time: files above are cut (bytes).
UNIT_BYTES = 512 << 20

UNITS = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("num_bytes", pa.int64(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("first", pa.int64(), nullable=False),
        pa.field("stop", pa.int64()),
        pa.field("offset", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Unit:
    """A file of a source, or rows `first` to `stop` of it."""

    file: storage.FileInfo
    first: int = 0
    stop: int | None = None  # None: to the end
    offset: int = 0  # of row `first` in a text (bytes, unpacked), so that a range is found without the rest


def has_units(source: Source) -> bool:
    """Whether a source is listed as units, some or all of which are staged; a folder is listed by itself."""
    return not isinstance(source, FolderSource)


def is_staged(source: Source, name: str) -> bool:
    """Whether the bytes of a file so named must be staged: those of a plain tar have ranges of their own."""
    return not isinstance(source, TarSource) or name.lower().endswith(COMPRESSED_TAR_SUFFIXES)


def cut_units(
    source: Source, findings: Findings | None = None, *, run_dir: str | None = None
) -> Iterator[Unit]:
    """Stream the units of a source, in the order of its rows.

    Raises:
        SourceError: when there is nothing at the path, or nothing of this kind in it.
        ConfigError: for a path that cannot be meant.
    """
    findings = Findings() if findings is None else findings
    for file in named_in_utf8(list_units(source, findings, run_dir=run_dir), findings):
        match source:
            case ParquetSource() | HuggingFaceSource() if is_parquet(file) and file.num_bytes > UNIT_BYTES:
                for first, stop in cut_parquet(file, UNIT_BYTES):
                    yield Unit(file, first, stop)
            case UrlSource():
                for first, stop, offset in cut_list(file, source):
                    yield Unit(file, first, stop, offset)
            case _:
                yield Unit(file)


def is_parquet(file: storage.FileInfo) -> bool:
    """Whether a file of a data set is read as parquet: the others are Arrow files, or folders of images."""
    return file.key.lower().endswith(SUFFIXES["parquet"])


def units_table(units: Iterable[Unit]) -> pa.Table:
    """The units as a table of `UNITS`."""
    rows = [{**asdict(u.file), "first": u.first, "stop": u.stop, "offset": u.offset} for u in units]
    return pa.Table.from_pylist(rows, schema=UNITS)


def read_units(table: pa.Table) -> list[Unit]:
    """The units of a table of `UNITS`."""
    return [
        Unit(storage.FileInfo(path, key, num_bytes, version), *rows)
        for path, key, num_bytes, version, *rows in zip(*table.to_pydict().values(), strict=True)
    ]
