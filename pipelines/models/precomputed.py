"""Vectors that somebody else made: looked up by an image's key in one parquet file."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float16, Int64

from curation import storage
from curation.errors import SourceError
from curation.ingest.tables.parquet_images import open_parquet

# A unit vector whose components were rounded to fp16 is this close to length 1; it is kept bit for bit.
UNIT_TOLERANCE = 2.0**-10
BATCH_ROWS = 1 << 14
MAX_NAME_BYTES = 1 << 14  # of a key and its pool
_NAMES_ROWS = 1 << 8


class PrecomputedVectors:
    """The vectors of a parquet file with the columns `key`, `embedding` and, where keys repeat, `pool`.

    Keys stay in Arrow memory; of the vectors only the row groups that a lookup needs are read.

    Args:
        path: the file; local, or a URL that `storage` reads.

    Raises:
        SourceError: it cannot be read, has other columns, a null key, or a key twice.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with _open(path) as file:
            self.has_pool = "pool" in file.schema_arrow.names
            self._group_rows = [
                file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)
            ]
            self._names = self._read_names(file)
            self.dim = self._dim(file)
        self._check_names()

    def lookup(
        self, keys: Sequence[str], pool: str
    ) -> tuple[Float16[np.ndarray, "n d"], Bool[np.ndarray, " n"]]:
        """The vectors of images.

        Args:
            keys: of images, n of them.
            pool: theirs; ignored where the file has no such column.

        Returns:
            Unit rows (n, dim), and which of them there are. A key that the file lacks, a null, a zero and a
            vector that is not finite have none, and zeros.
        """
        pools = pa.array([pool] * len(keys), pa.string()) if self.has_pool else None
        wanted = self._name(pa.array(keys, pa.string()), pools).dictionary_encode()
        # Probing the file's names against the few that are wanted hashes 10,000 names, not millions.
        slot = pc.index_in(self._names, value_set=wanted.dictionary)
        file_rows = np.flatnonzero(pc.is_valid(slot).to_numpy(zero_copy_only=False))
        slots = pc.drop_null(slot).to_numpy(zero_copy_only=False).astype(np.int64)
        vectors = np.zeros((len(wanted.dictionary), self.dim), np.float16)
        has = np.zeros(len(wanted.dictionary), bool)
        for found, raw in self._read(file_rows):
            vectors[slots[found]], has[slots[found]] = _unit_fp16(raw)
        codes = wanted.indices.to_numpy(zero_copy_only=False)
        return vectors[codes], has[codes]

    def known(self, keys: Sequence[str], pool: str) -> Bool[np.ndarray, " n"]:
        """Which keys the file has, with a vector or without."""
        pools = pa.array([pool] * len(keys), pa.string()) if self.has_pool else None
        wanted = self._name(pa.array(keys, pa.string()), pools)
        there = self._names.filter(pc.is_in(self._names, value_set=wanted.unique()))
        is_there: np.ndarray = pc.is_in(wanted, value_set=there).to_numpy(zero_copy_only=False)
        return is_there

    @property
    def first_key(self) -> str:
        """The file's first key, for people to compare theirs with; empty where there is none."""
        return self._names[0].as_py().rpartition("\0")[2] if len(self._names) else ""

    def _read_names(self, file: pq.ParquetFile) -> pa.Array:
        """The names of all rows; a few at a time, for one long text may be that of every row."""
        pieces = []
        for batch in file.iter_batches(_NAMES_ROWS, columns=["pool", "key"] if self.has_pool else ["key"]):
            names = self._name(batch["key"], batch["pool"] if self.has_pool else None)
            longest = pc.max(pc.binary_length(names)).as_py() or 0
            if longest > MAX_NAME_BYTES:
                raise SourceError(
                    f"A key in {storage.redact(self.path)} is no key of an image",
                    got=f"{longest} bytes",
                    expected=f"at most {MAX_NAME_BYTES}",
                )
            pieces.append(names)
        return pa.chunked_array(pieces, pa.large_string()).combine_chunks()

    def _read(
        self, file_rows: Int64[np.ndarray, " m"]
    ) -> Iterator[tuple[Int64[np.ndarray, " b"], np.ndarray]]:
        """Pieces of the wanted rows that have a vector: positions within `file_rows`, and raw vectors."""
        if not len(file_rows):
            return
        starts = np.cumsum([0, *self._group_rows])
        with _open(self.path) as file:
            for group in np.unique(np.searchsorted(starts, file_rows, side="right") - 1).tolist():
                first = int(starts[group])
                self._check_size(file, group)
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=["embedding"]):
                    low, high = np.searchsorted(file_rows, [first, first + len(batch)])
                    if low < high:
                        rows = _plain(batch.column(0)).take(pa.array(file_rows[low:high] - first))
                        valid = pc.is_valid(rows).to_numpy(zero_copy_only=False)
                        yield np.arange(low, high)[valid], self._matrix(pc.drop_null(rows))
                    first += len(batch)

    def _check_size(self, file: pq.ParquetFile, group: int) -> None:
        """See that a row group holds no more numbers than its rows want, however well they compress."""
        wanted = self._group_rows[group] * max(self.dim, 1)
        chunk = file.metadata.row_group(group)
        places = [i for i in range(chunk.num_columns) if _is_of(chunk.column(i).path_in_schema, "embedding")]
        for place in places:
            if (got := chunk.column(place).num_values) > wanted:
                raise SourceError(
                    f"Embeddings in {storage.redact(self.path)} differ in length",
                    got=f"{got} numbers in {self._group_rows[group]} rows",
                    expected=f"{self.dim} numbers in each, the length of the file's first",
                )

    def _matrix(self, rows: pa.Array) -> np.ndarray:
        values = rows.flatten()
        lengths = pc.list_value_length(rows)
        if values.null_count or not pc.all(pc.equal(lengths, self.dim)).as_py():
            raise SourceError(
                f"Embeddings in {storage.redact(self.path)} differ in length, or hold nulls",
                got=f"lengths {sorted(set(lengths.to_pylist()))[:5]}, {values.null_count} nulls",
                expected=f"{self.dim} numbers in each, the length of the file's first",
            )
        numbers: np.ndarray = values.to_numpy(zero_copy_only=False)
        return numbers.reshape(len(rows), self.dim)

    def _dim(self, file: pq.ParquetFile) -> int:
        kind = _storage_of(file.schema_arrow.field("embedding").type)
        if pa.types.is_fixed_size_list(kind):
            return int(kind.list_size)
        for batch in file.iter_batches(1, columns=["embedding"]):
            if lengths := pc.drop_null(pc.list_value_length(batch.column(0))).to_pylist():
                return int(lengths[0])
        return 0

    def _check_names(self) -> None:
        if self._names.null_count:
            raise SourceError(
                f"Rows of {storage.redact(self.path)} have no key",
                got=f"{self._names.null_count} nulls",
                expected="a key in every row",
            )
        if pc.count_distinct(self._names).as_py() < len(self._names):
            counts = pc.value_counts(self._names)
            twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
            raise SourceError(
                f"A key stands more than once in {storage.redact(self.path)}",
                got=f"{twice[0].as_py()!r} and {len(twice) - 1} more".replace("\\x00", " / "),
                expected="one row an image" if self.has_pool else "one row an image, or a column `pool`",
            )

    def _name(self, keys: pa.Array, pools: pa.Array | None) -> pa.Array:
        """One string an image: the key, behind its pool where the file has pools."""
        keys = keys.cast(pa.large_string())
        if pools is not None:
            keys = pc.binary_join_element_wise(
                pools.cast(pa.large_string()), keys, pa.scalar("\0", pa.large_string())
            )
        return keys


def has_pool_column(path: str) -> bool:
    """Whether a file of vectors tells equal keys of two pools apart; only what it says of itself is read.

    Raises:
        SourceError: it cannot be read, or has other columns.
    """
    with _open(path) as file:
        return "pool" in file.schema_arrow.names


@contextmanager
def _open(path: str) -> Iterator[pq.ParquetFile]:
    """The file, closed afterwards.

    Raises:
        SourceError: it cannot be read, also later on, or has other columns.
    """
    try:
        if storage.is_local(path):
            storage.read_bytes(path, 0, 1)  # of a pipe or a device, which Arrow would wait for
            opened: AbstractContextManager[pq.ParquetFile] = pq.ParquetFile(
                storage.local_path(path), memory_map=True
            )
        else:
            opened = open_parquet(path)
        with opened as file:
            _check_schema(path, file.schema_arrow)
            yield file
    except (OSError, pa.ArrowInvalid) as error:
        is_wrong = isinstance(error, FileNotFoundError | pa.ArrowInvalid)
        raise SourceError(
            f"No precomputed embeddings could be read from {storage.redact(path)}",
            got=error,
            expected="a parquet file" if is_wrong else "a file that can be read to its end",
            remedy="Check the path" if is_wrong else "Run again: what is done is kept",
        ) from error


def _check_schema(path: str, found: pa.Schema) -> None:
    kinds = {name: found.field(name).type for name in ("key", "embedding", "pool") if name in found.names}
    is_right = _is_vector(kinds.get("embedding")) and _is_text(kinds.get("key"))
    if not is_right or not _is_text(kinds.get("pool", pa.string())):
        raise SourceError(
            f"{storage.redact(path)} is no file of embeddings",
            got=", ".join(f"{field.name}: {field.type}" for field in found),
            expected="key: text, embedding: list or tensor of float16, float32 or float64; pool: text if any",
        )


def _is_vector(kind: pa.DataType | None) -> bool:
    if kind is None:
        return False
    kind = _storage_of(kind)
    is_list = (
        pa.types.is_fixed_size_list(kind)
        or pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )
    return bool(is_list and pa.types.is_floating(kind.value_type))


def _storage_of(kind: pa.DataType) -> pa.DataType:
    """What a type that is made of another, such as a tensor of fixed shape, is made of."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _plain(rows: pa.Array) -> pa.Array:
    return rows.storage if isinstance(rows, pa.ExtensionArray) else rows


def _is_of(path: str, column: str) -> bool:
    return path == column or path.startswith(f"{column}.")


def _is_text(kind: pa.DataType | None) -> bool:
    if kind is None:
        return False
    text = kind.value_type if pa.types.is_dictionary(kind) else kind
    are_texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_text(text) for is_text in are_texts)


def _unit_fp16(
    raw: np.ndarray,
) -> tuple[Float16[np.ndarray, "n d"], Bool[np.ndarray, " n"]]:
    """Rows as they are if unit already, else scaled to unit length in fp64; and which of them can be."""
    wide = raw.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    has = np.isfinite(norms) & (norms > 0)
    is_unit = np.abs(norms - 1) <= UNIT_TOLERANCE
    scaled = wide / np.where(is_unit | ~has, 1.0, norms)
    return np.where(has, scaled, 0.0).astype(np.float16), has[:, 0]
