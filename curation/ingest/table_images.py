"""Rows of a table with a column of image bytes become staged images."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pt

from curation import storage
from curation.errors import ConfigError
from curation.ingest.problems import Findings, Problem
from curation.ingest.row_values import name_of, read_values, row_sidecars
from curation.ingest.rows import as_text
from curation.ingest.sources import TableSource
from curation.ingest.staging import StagedImage
from curation.ingest.unique_names import UniqueNames

# Where several columns hold bytes, the first of these that does is the image.
IMAGE_NAMES = ("image", "jpg", "jpeg", "png", "webp", "img", "image_bytes", "bytes", "content")
# What can end the reading of a table: a store, or a file that is not what its format wants. Names of columns
# are decoded, and their types gone through, by Python.
READING_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns are what: `image` and, for a struct, the field in it; those that travel as json."""

    image: str
    field: str | None
    key: str | None
    others: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """All that must be read."""
        return [*dict.fromkeys((self.image, *([self.key] if self.key else []), *self.others))]


def choose_columns(schema: pa.Schema, source: TableSource, info: storage.FileInfo) -> Columns:
    """Find the columns that the source names, or the one that must be meant.

    Raises:
        ConfigError: naming the columns that there are.
    """
    there = ", ".join(f"{f.name} ({f.type})" for f in schema)
    where = storage.redact(info.path)
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise ConfigError(f"{where} has columns of one name", got=there, expected=f"{twice[0]!r} once")
    wanted = [source.image] if source.image else IMAGE_NAMES
    found = [place for name in wanted if (place := _image_at(schema, name))]
    if not found and source.image is None:
        found = [place for name in schema.names if (place := _image_at(schema, name))]
        found = found if len(found) == 1 else []
    if not found:
        raise ConfigError(
            f"{where} has no column of image bytes"
            + (f" named {source.image!r}" if source.image else " that could be told"),
            got=there,
            expected="a column of binary type, or a struct with a field `bytes`",
            remedy="Name it in the source: image: COLUMN, or COLUMN.FIELD",
        )
    image, field = found[0]
    for name in (*([source.key] if source.key else []), *(source.columns or ())):
        if name not in schema.names:
            raise ConfigError(f"{where} has no column {name!r}", got=there)
    others = source.columns
    if others is None:
        others = tuple(f.name for f in schema if f.name != image and not _has_bytes(f.type))
    return Columns(image, field, source.key, others)


def _image_at(schema: pa.Schema, name: str) -> tuple[str, str | None] | None:
    column, _, field = name.partition(".")
    if name in schema.names:
        column, field = name, ""
    if column not in schema.names:
        return None
    kind = schema.field(column).type
    if pt.is_struct(kind):
        field = field or "bytes"
        index = kind.get_field_index(field)
        return (column, field) if index >= 0 and _is_bytes(kind.field(index).type) else None
    return (column, None) if _is_bytes(kind) and not field else None


def _is_bytes(kind: pa.DataType) -> bool:
    return pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind)


def _has_bytes(kind: pa.DataType) -> bool:
    return _is_bytes(kind) or any(_has_bytes(kind.field(i).type) for i in range(kind.num_fields))


class Keys:
    """Names rows by the key column, each once in the file, or by their numbers."""

    def __init__(self, columns: Columns, before: Iterable[pa.RecordBatch] = ()) -> None:
        """A range of the file must give the keys that the whole file would: it needs those `before` it."""
        self._column = columns.key
        self._unique = UniqueNames() if columns.key else None
        row = 0
        for batch in before:
            self.of(batch, row)
            row += len(batch)

    def of(self, batch: pa.RecordBatch, row: int) -> list[str]:
        """The names of a batch whose first row is `row`; batches come in order."""
        values = read_values(batch.column(self._column)) if self._column else [None] * len(batch)
        return [self._name(value, row + i) for i, value in enumerate(values)]

    def _name(self, value: object, row: int) -> str:
        name = name_of(value, row)
        return name if self._unique is None else self._unique.take(name)


def table_images(
    batch: pa.RecordBatch,
    row: int,
    columns: Columns,
    *,
    named: list[str],
    info: storage.FileInfo,
    source: TableSource,
    findings: Findings,
) -> Iterator[StagedImage]:
    """The images of a batch whose first row is `row`.

    A row's key is `key_prefix`, the file's key, a slash, and the row's name. A null image is `missing_image`.
    The path in the struct of Hugging Face `datasets` is never opened: whoever wrote the table would choose
    the file that is read.

    Args:
        batch: some rows, with all of `columns`.
        row: number of the first within the file.
        columns: which is what.
        named: the rows' names, from `Keys`.
        info: the file.
        source: what it belongs to.
        findings: sidecars that are left out are added here.
    """
    images = batch.column(columns.image)
    if columns.field is not None:
        # `flatten` takes the struct's own nulls into its fields.
        images = images.flatten()[images.type.get_field_index(columns.field)]
    others = [read_values(batch.column(name)) for name in columns.others]
    for i, name in enumerate(named):
        values = {column: items[i] for column, items in zip(columns.others, others, strict=True)}
        place = (info.path, f"row {row + i}")
        sidecars = row_sidecars(values or None, place, max_bytes=source.max_sidecar_bytes, findings=findings)
        data = images[i].as_py()
        yield StagedImage(
            key=f"{source.key_prefix}{as_text(info.key)}/{name}",
            uri=f"{storage.redact(info.path)}#{name}",
            data=data,
            reason="missing_image" if data is None else None,
            sidecars=sidecars,
        )


def reading_problem(info: storage.FileInfo, error: Exception, row: int) -> Problem:
    """What ended the reading of a table at row `row` (`READING_ERRORS`): damage, or a store that failed."""
    is_damage = not isinstance(error, MemoryError)
    if isinstance(error, OSError):
        # The system's own errors have a number, and a store's are of no local file; Arrow's are neither.
        is_damage = storage.is_local(info.path) and error.errno is None
    detail = f"rows from {row} on: {' '.join(str(error).split())[:300]}"
    return Problem(info.path, "corrupt" if is_damage else "unreadable", detail)
