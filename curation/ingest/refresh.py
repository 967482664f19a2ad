"""A saved listing is brought up to date with a new one, and no part changes that need not."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

import pyarrow as pa

from curation.errors import SourceError
from curation.schema import IMAGES

Fresh = dict[bytes, tuple[int, int]]  # digest of a key → which of the held tables, and row there


def merge_listing(old: Sequence[pa.Table], new: Iterable[pa.Table], *, part_rows: int) -> Iterator[pa.Table]:
    """Merge a new listing of a source into the saved one, so that what is unchanged is not computed again.

    A row is unchanged when all of its columns are: key, size, version, and the names, places and sizes of its
    sidecars. A changed row takes the place of the old one with its key, a vanished row is left out; a part
    without either is given back as it is, one that loses all its rows is left out. Rows with new keys follow
    at the end, in parts of their own. Held in memory: a digest of every old row, and the new or changed rows.

    Args:
        old: the saved parts, each of `schema.IMAGES`, in order; gone through twice, and may be loaded lazily.
        new: the new listing in tables of any size; keys are unique within it.
        part_rows: rows of a part of new keys.

    Returns:
        The parts of the merged listing, in order.

    Raises:
        SourceError: when two rows of the new listing have one key: one would take the other's place.
    """
    unseen = {digest for part in old for _, digest in _row_digests(part)}
    fresh, held = _fresh_rows(new, unseen)
    for part in old:
        merged = _merge_part(part, unseen, fresh, held)
        if len(merged):
            yield merged
    if not fresh:
        return
    # What is left of `fresh` (insertion order is listing order) has keys that the saved listing lacks.
    offsets = [0, *accumulate(map(len, held))]
    added = pa.concat_tables(held).take([offsets[table] + row for table, row in fresh.values()])
    for start in range(0, len(added), part_rows):
        yield added.slice(start, part_rows).combine_chunks()


def _fresh_rows(new: Iterable[pa.Table], unseen: set[bytes]) -> tuple[Fresh, list[pa.Table]]:
    """The rows that are new or changed, and where they are held; those that are not leave `unseen`."""
    fresh: Fresh = {}
    held: list[pa.Table] = []
    for table in new:
        rows: list[int] = []
        for row, (key, digest) in enumerate(_row_digests(table)):
            if digest in unseen:
                unseen.remove(digest)
            elif key in fresh:
                raise _twice(table, row)
            else:
                fresh[key] = (len(held), len(rows))
                rows.append(row)
        if rows:
            held.append(table.take(rows))
    return fresh, held


def _merge_part(part: pa.Table, unseen: set[bytes], fresh: Fresh, held: list[pa.Table]) -> pa.Table:
    """The part, or a new one where a row has changed or vanished; takes what it uses out of `fresh`."""
    pieces: list[pa.Table] = []
    start = 0
    for row, (key, digest) in enumerate(_row_digests(part)):
        if digest not in unseen:
            if key in fresh:
                raise _twice(part, row)
            continue
        pieces.append(part.slice(start, row - start))
        start = row + 1
        if key in fresh:
            table, at = fresh.pop(key)
            pieces.append(held[table].slice(at, 1))
    if not pieces:
        return part
    return pa.concat_tables([*pieces, part.slice(start)]).combine_chunks()


def _twice(table: pa.Table, row: int) -> SourceError:
    found = table.slice(row, 1).to_pylist()[0]
    return SourceError(
        "Two images of a source have one key",
        got=f"{found['key'][:200]!r}, which is also that of {found['uri'][:200]}",
        expected="a key for every image",
        remedy="Rename one of the two, or what holds it",
    )


def _row_digests(table: pa.Table) -> Iterator[tuple[bytes, bytes]]:
    """The digest of every row's key, and that of all its columns."""
    for batch in table.select(IMAGES.names).to_batches(max_chunksize=4096):
        for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield _digest(values[0]), _digest(repr(values))


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
