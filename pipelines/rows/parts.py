"""The parts of a run, and their columns and vectors as arrays over global rows."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float16, Int64, UInt64

from curation import storage
from curation.errors import IntegrityError
from curation.hashes import Hashes
from curation.schema import IMAGES, Role
from pipelines.engine.digest import digest_of, hashed_once
from pipelines.engine.step import FileRef
from pipelines.rows.arrow_columns import rows_at


@dataclass(frozen=True)
class Part:
    """One part: its place in the run, and the files that the per-part steps made of it.

    Args:
        number: position among the run's parts.
        offset: global row of its first row.
    """

    number: int
    pool: str
    role: Role
    offset: int
    num_rows: int
    images: FileRef
    described: FileRef | None = None
    embeddings: FileRef | None = None
    descriptors: FileRef | None = None
    verdicts: FileRef | None = None
    pca_hashes: FileRef | None = None
    head_vectors: FileRef | None = None  # where heads look at other vectors than the embeddings
    scores: FileRef | None = None
    faces: FileRef | None = None

    @property
    def copy_vectors(self) -> FileRef | None:
        """The copy descriptors: the embeddings, where they serve as both."""
        return self.descriptors or self.embeddings

    @property
    def seen_by_heads(self) -> FileRef | None:
        """The vectors that heads look at: the embeddings, unless there are others for them."""
        return self.head_vectors or self.embeddings

    def only(self, *names: str) -> "Part":
        """The part with the named files alone."""
        kept = {getattr(self, name) for name in names}
        gone: dict[str, Any] = {name: None for name in _FILES if getattr(self, name) not in kept}
        return replace(self, **gone)


_FILES = tuple(field.name for field in fields(Part) if field.type in (FileRef, FileRef | None))


@dataclass(frozen=True)
class FilesOf:
    """Marks a part of which the bytes of some files are read, wherever it stands.

    Its place, its pool and its role are not to be had then, lest an output hang on them unhashed.
    """

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)

    def digest(self, value: Part) -> str:
        return digest_of([getattr(value, name) for name in self.names])

    def narrow(self, value: Part) -> Part:
        return replace(value.only(*self.names), number=0, offset=0, pool="", role="uncurated")


@dataclass(frozen=True)
class PlacesOf:
    """Marks parts of which some files are read and the place in the run is told by rows that are global."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)

    def digest(self, value: Sequence[Part]) -> str:
        return hashed_once(value, self, lambda: digest_of([self._place(part) for part in value]))

    def _place(self, part: Part) -> list[object]:
        files = [getattr(part, name) for name in self.names]
        return [part.number, part.pool, part.role, part.offset, part.num_rows, *files]

    def narrow(self, value: Sequence[Part]) -> tuple[Part, ...]:
        return tuple(part.only(*self.names) for part in value)


_HASHES = Hashes()  # of this process


def verified(ref: FileRef, *, hashes: Hashes = _HASHES) -> str:
    """The path of a published file, once its bytes have been seen to be what the receipt says.

    Each process hashes each file once, and again when it has changed.

    Raises:
        IntegrityError: naming the file, when its bytes are others.
    """
    if (sha256 := hashes.told(ref.path)) != ref.sha256:
        raise IntegrityError(
            f"A file of the run is damaged: {ref.path}",
            got=f"SHA-256 {sha256}",
            expected=f"{ref.num_bytes} bytes, SHA-256 {ref.sha256}",
            remedy="Run the same config again: what is damaged is set aside and made anew",
            path=ref.path,
        )
    return ref.path


def read(ref: FileRef | None, columns: list[str] | None = None) -> pa.Table:
    """A published table."""
    assert ref is not None, "a step was built before the file that it reads"
    return storage.read_table(verified(ref), columns)


def read_array(ref: FileRef | None) -> np.ndarray:
    """A published array, memory-mapped."""
    assert ref is not None, "a step was built before the file that it reads"
    return storage.read_vectors(verified(ref))


def column(parts: Sequence[Part], file: str, name: str) -> pa.ChunkedArray:
    """One column of one of the parts' tables, over all global rows of `parts`."""
    chunks = [read(getattr(part, file), [name])[name] for part in parts]
    return pa.chunked_array([chunk for column in chunks for chunk in column.chunks], type=chunks[0].type)


def is_null(parts: Sequence[Part], file: str, name: str) -> Bool[np.ndarray, " n"]:
    """Where a column has no value."""
    return np.asarray(column(parts, file, name).is_null().to_numpy())


def sha256_words(parts: Sequence[Part]) -> UInt64[np.ndarray, "n 4"]:
    """The SHA-256 of every image as four big-endian words; zeros where there is none."""
    words = [np.zeros((part.num_rows, 4), np.uint64) for part in parts]
    for part, out in zip(parts, words, strict=True):
        for start, chunk in _chunks(read(part.described, ["sha256"])["sha256"]):
            filled = chunk.fill_null(bytes(32))
            data = np.frombuffer(b"".join(filled.to_pylist()), dtype=">u8")
            out[start : start + len(chunk)] = data.reshape(-1, 4)
    return np.concatenate(words)


def _chunks(values: pa.ChunkedArray) -> Iterator[tuple[int, pa.Array]]:
    start = 0
    for chunk in values.chunks:
        yield start, chunk
        start += len(chunk)


def roles(parts: Sequence[Part], *wanted: Role) -> Bool[np.ndarray, " n"]:
    """Which global rows belong to a pool of one of these roles."""
    return np.repeat([part.role in wanted for part in parts], [part.num_rows for part in parts])


def in_pools(parts: Sequence[Part], pools: Collection[str]) -> Bool[np.ndarray, " n"]:
    """Which global rows belong to any of the pools."""
    return np.repeat([part.pool in pools for part in parts], [part.num_rows for part in parts])


def vector_blocks(
    parts: Iterable[Part], file: str, rows: Int64[np.ndarray, " m"]
) -> Iterator[tuple[Int64[np.ndarray, " k"], Float16[np.ndarray, "k d"]]]:
    """The vectors of some rows, part by part.

    Args:
        parts: in order.
        file: `embeddings` or `descriptors`.
        rows: global rows, ascending.
    """
    for part in parts:
        start, stop = np.searchsorted(rows, [part.offset, part.offset + part.num_rows])
        if stop > start:
            mine = rows[start:stop]
            yield mine, np.asarray(read_array(getattr(part, file))[mine - part.offset])


def gather_vectors(
    parts: Sequence[Part], file: str, rows: Int64[np.ndarray, " m"]
) -> Float16[np.ndarray, "m d"]:
    """The vectors of some ascending global rows in one array."""
    blocks = [vectors for _, vectors in vector_blocks(parts, file, rows)]
    if blocks:
        return np.concatenate(blocks)
    return np.zeros((0, read_array(getattr(parts[0], file)).shape[1]), np.float16)


def row_table(
    parts: Sequence[Part], rows: Int64[np.ndarray, " m"], names: Sequence[str] = ("key",)
) -> pa.Table:
    """`pool` and columns of `images` of some rows; each part that holds one is read once.

    Args:
        parts: in order.
        rows: global rows, ascending.
        names: the columns.
    """
    pieces = [pa.schema([("pool", pa.string())] + [IMAGES.field(name) for name in names]).empty_table()]
    for part in parts:
        start, stop = np.searchsorted(rows, [part.offset, part.offset + part.num_rows])
        if stop > start:
            table = read(part.images, list(names)).take(pa.array(rows[start:stop] - part.offset))
            pieces.append(table.add_column(0, "pool", pa.array([part.pool] * len(table), pa.string())))
    return pa.concat_tables(pieces)


def names_of(parts: Sequence[Part], rows: Iterable[int]) -> dict[int, str]:
    """`pool/key` of some global rows; each part that holds one is read once."""
    wanted = np.unique(np.fromiter(rows, np.int64))
    found: dict[int, str] = {}
    for part in parts:
        start, stop = np.searchsorted(wanted, [part.offset, part.offset + part.num_rows])
        if stop > start:
            mine = wanted[start:stop]
            images = rows_at(read(part.images, ["key"]), mine - part.offset)
            keys = [image["key"] for image in images]
            found |= {row: f"{part.pool}/{key}" for row, key in zip(mine.tolist(), keys, strict=True)}
    return found
