"""Rows of a table with a column of image bytes become staged images."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from curation import storage
from curation.errors import ConfigError
from curation.ingest.problems import Findings, Problem
from curation.ingest.rows import as_text
from curation.ingest.sources import TableSource
from curation.ingest.staging import StagedImage
from curation.ingest.tables.column_types import (
    has_free_bytes,
    holds_pictures,
    is_bytes,
    is_free_bytes,
    plain_type,
)
from curation.ingest.tables.inflation import InflatesError
from curation.ingest.tables.row_values import (
    has_no_name,
    holds_bytes,
    name_of,
    no_text_note,
    read_values,
    row_sidecars,
)
from curation.ingest.unique_names import UniqueNames, repeated_keys_note

# Where several columns hold bytes, the first of these that does is the image.
IMAGE_NAMES = ("image", "jpg", "jpeg", "png", "webp", "img", "image_bytes", "bytes", "content")
# Rows that Python holds values of: a batch may be a file's all, and each value as large in each row.
_PIECE_ROWS = 16
# What can end the reading of a table: a store, or a file that is not what its format wants. Names of columns
# are decoded, and their types gone through, by Python.
READING_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns are what: `image` and, for a struct, the field in it; those that travel as json.

    Of those that nobody asked for, `pictures` are left out, and of `maybe_pictures` the values that are no
    text.
    """

    image: str
    field: str | None
    key: str | None
    others: tuple[str, ...]
    pictures: tuple[str, ...] = ()
    maybe_pictures: frozenset[str] = frozenset()

    @property
    def names(self) -> list[str]:
        """All that must be read."""
        return [*dict.fromkeys((self.image, *([self.key] if self.key else []), *self.others))]


def choose_columns(schema: pa.Schema, source: TableSource, info: storage.FileInfo) -> Columns:
    """Find the columns that the source names, or the one that must be meant.

    Raises:
        ConfigError: naming the columns that there are.
    """
    there = _columns_of(schema)
    where = storage.redact(info.path)
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise ConfigError(f"{where} has columns of one name", got=there, expected=f"{twice[0]!r} once")
    wanted = [source.image] if source.image else IMAGE_NAMES
    found = [place for name in wanted if (place := _image_at(schema, name))]
    if not found and source.image is None:
        found = _only_image(schema)
    if not found:
        raise _no_image(schema, source, where)
    image, field = found[0]
    for name in (*([source.key] if source.key else []), *(source.columns or ())):
        if name not in schema.names:
            raise ConfigError(f"{where} has no column {name!r}", got=there)
    if source.columns is not None:
        return Columns(image, field, source.key, source.columns)
    others = {f.name: f.type for f in schema if f.name != image}
    pictures = tuple(name for name, kind in others.items() if holds_pictures(kind))
    return Columns(
        image,
        field,
        source.key,
        tuple(name for name in others if name not in pictures),
        pictures=pictures,
        maybe_pictures=frozenset(name for name, kind in others.items() if is_free_bytes(kind)),
    )


def _no_image(schema: pa.Schema, source: TableSource, where: str) -> ConfigError:
    places = _places_of_bytes(schema)
    which = f" named {source.image!r}" if source.image else " that could be told" if places else ""
    return ConfigError(
        f"{where} has no column of image bytes{which}",
        got=_columns_of(schema),
        expected="a column of binary type, or a struct with a field `bytes`",
        remedy=f"Name it in the source: image: {' or '.join(places)}"
        if places
        else "Write the images' bytes into a column of binary type; lists and text are not decoded",
    )


def _columns_of(schema: pa.Schema) -> str:
    return ", ".join(f"{f.name} ({f.type})" for f in schema)


def _image_at(schema: pa.Schema, name: str) -> tuple[str, str | None] | None:
    column, _, field = name.partition(".")
    if name in schema.names:
        column, field = name, ""
    if column not in schema.names:
        return None
    kind = plain_type(schema.field(column).type)
    if pt.is_struct(kind):
        field = field or "bytes"
        index = kind.get_field_index(field)
        return (column, field) if index >= 0 and is_bytes(kind.field(index).type) else None
    return (column, None) if is_bytes(kind) and not field else None


def _only_image(schema: pa.Schema) -> list[tuple[str, str | None]]:
    """The one column that can be the image; bytes of a fixed size are digests, unless there are no others."""
    found = [place for name in schema.names if (place := _image_at(schema, name))]
    others = [
        place for place in found if not pt.is_fixed_size_binary(plain_type(schema.field(place[0]).type))
    ]
    several = others or found
    return several if len(several) == 1 else []


def _places_of_bytes(schema: pa.Schema) -> list[str]:
    """What a source may name as its image: columns, and fields of structs."""
    fields = [
        (f.name, [kind.field(i).name for i in range(kind.num_fields)] if pt.is_struct(kind) else [])
        for f in schema
        for kind in [plain_type(f.type)]
    ]
    places = [place for name, inner in fields for place in (name, *(f"{name}.{field}" for field in inner))]
    return [place for place in places if _image_at(schema, place)]


class TableRows:
    """The rows of a file as images, batch after batch.

    A row's key is `key_prefix`, the file's key, a slash, and the row's name: of the key column, each once in
    the file, or its number. A null image is `missing_image`. The path in the struct of Hugging Face
    `datasets` is never opened: whoever wrote the table would choose the file that is read.
    """

    def __init__(
        self, info: storage.FileInfo, source: TableSource, columns: Columns, findings: Findings
    ) -> None:
        self._info, self._source, self._columns, self._findings = info, source, columns, findings
        self._unique = UniqueNames() if columns.key else None
        self._num_repeated_before = self._num_nameless = 0
        self._num_paths, self._first_path = 0, ""
        self._no_text = set(columns.pictures)  # columns with bytes that are left out

    def pass_over(self, before: Iterable[pa.RecordBatch]) -> None:
        """A range of the file must give the keys that the whole file would: it needs those `before` it."""
        row = 0
        for batch in before:
            self._names(batch, row, Findings())
            row += len(batch)
        self._num_repeated_before, self._num_nameless = self._num_repeated, 0

    def images(self, batch: pa.RecordBatch, row: int) -> Iterator[StagedImage]:
        """The images of a batch whose first row is `row`, with all of `columns`; batches come in order."""
        for start in range(0, len(batch), _PIECE_ROWS):
            yield from self._piece(batch.slice(start, _PIECE_ROWS), row + start)

    def _piece(self, batch: pa.RecordBatch, row: int) -> Iterator[StagedImage]:
        columns = self._columns
        images, paths = _image_values(batch.column(columns.image), columns.field)
        others = [read_values(batch.column(name)) for name in columns.others]
        for i, name in enumerate(self._names(batch, row, self._findings)):
            values = self._kept({name: items[i] for name, items in zip(columns.others, others, strict=True)})
            sidecars = row_sidecars(
                values or None,
                (self._info.path, f"row {row + i}"),
                max_bytes=self._source.max_sidecar_bytes,
                findings=self._findings,
            )
            data = images[i].as_py()
            if data is None and paths is not None and paths[i].is_valid:
                self._num_paths += 1
                self._first_path = self._first_path or str(read_values(paths.slice(i, 1))[0])[:200]
            yield StagedImage(
                key=f"{self._source.key_prefix}{as_text(self._info.key)}/{name}",
                uri=f"{storage.redact(self._info.path)}#{name}",
                data=data,
                reason="missing_image" if data is None else None,
                sidecars=sidecars,
            )

    def _kept(self, values: dict[str, Any]) -> dict[str, Any]:
        """A row's values without bytes that are no text; deeper ones, or of a fixed size, are null."""
        odd = {name for name, value in values.items() if holds_bytes(value)}
        self._no_text |= odd
        lost = {name for name in odd & self._columns.maybe_pictures if isinstance(values[name], bytes)}
        return {name: value for name, value in values.items() if name not in lost} if lost else values

    def _names(self, batch: pa.RecordBatch, row: int, findings: Findings) -> list[str]:
        values = read_values(batch.column(self._columns.key)) if self._columns.key else [None] * len(batch)
        names = [
            name_of(value, row + i, place=self._info.path, findings=findings)
            for i, value in enumerate(values)
        ]
        if self._unique is None:
            return names
        self._num_nameless += sum(map(has_no_name, values))
        return [self._unique.take(name) for name in names]

    @property
    def _num_repeated(self) -> int:
        return self._unique.num_repeated if self._unique is not None else 0

    def end(self) -> None:
        """Note what only the whole of the rows shows."""
        if num_repeated := self._num_repeated - self._num_repeated_before:
            self._findings.notes.append(repeated_keys_note(self._info.path, num_repeated))
        if self._num_nameless:
            detail = f"{self._num_nameless} rows have no key; their numbers stand for it"
            self._findings.notes.append(Problem(self._info.path, "no_key", detail))
        self._findings.notes.extend(no_text_note(self._source.path, name) for name in sorted(self._no_text))
        if self._num_paths:
            detail = (
                f"{self._num_paths} rows of column {self._columns.image!r} have a path, such as "
                f"{self._first_path!r}, and no bytes; such files are never opened: embed them in the "
                "table, or give their folder as a source of kind folder"
            )
            self._findings.notes.append(Problem(self._info.path, "paths_alone", detail))


def _image_values(images: pa.Array, field: str | None) -> tuple[pa.Array, pa.Array | None]:
    """The images' bytes and, of a struct that has them beside, their paths."""
    images = _storage_of(images)
    if field is None:
        return images, None
    # `flatten` takes the struct's own nulls into its fields.
    fields, kind = images.flatten(), images.type
    at = kind.get_field_index("path")
    is_text = at >= 0 and field != "path" and not has_free_bytes(kind.field(at).type)
    return _storage_of(fields[kind.get_field_index(field)]), fields[at] if is_text else None


def _storage_of(column: pa.Array) -> pa.Array:
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def empty_note(path: str) -> Problem:
    """That a table, or a list, has no row: was it cut, or filtered, too far?"""
    return Problem(path, "empty_table", "0 rows")


def reading_problem(info: storage.FileInfo, error: Exception, row: int) -> Problem:
    """What ended the reading of a table at row `row` (`READING_ERRORS`): damage, a bomb or a store."""
    is_damage = not isinstance(error, MemoryError)
    if isinstance(error, OSError):
        # The system's own errors have a number, and a store's are of no local file; Arrow's are neither.
        is_damage = storage.is_local(info.path) and error.errno is None
    detail = f"rows from {row} on: {' '.join(str(error).split())[:300]}"
    if isinstance(error, InflatesError):
        return Problem(info.path, "unpacks_too_large", detail)
    return Problem(info.path, "corrupt" if is_damage else "unreadable", detail)
