"""What must hold of the listings before anything is computed: there are rows, and a key names one image."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import UInt64

from curation.errors import ConfigError, SourceError
from curation.ingest.problems import finding_line
from pipelines.rows.parts import Part, read, row_table

BATCH_ROWS = 1 << 14
_NUM_NOTES = 3  # kinds of them, that sources without an image are told with


def require_rows(
    parts: Sequence[Part],
    unread: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[Mapping[str, Any]] = (),
) -> None:
    """See that the sources gave any image at all.

    Args:
        parts: of the run.
        unread: what of the sources was not read, as in receipts.
        notes: what was odd about them, likewise.

    Raises:
        SourceError: when they gave none; with the first findings, which say why.
    """
    if any(part.num_rows for part in parts):
        return
    kinds = {note["what"]: note for note in reversed(notes)}
    told = [
        ("not read", unread[:1], len(unread)),
        ("odd", list(kinds.values())[::-1][:_NUM_NOTES], len(notes)),
    ]
    found = [
        f"{word}: {', '.join(map(finding_line, some))}{_more(num - len(some))}"
        for word, some, num in told
        if some
    ]
    remedy = (
        "Mend or replace what could not be read (`--refresh` then reads it), and check" if unread else "Check"
    )
    raise SourceError(
        "The sources hold no image",
        got="; ".join(["no rows from any pool", *found]),
        expected="at least one image in folders, tars, tables, lists or crawls",
        remedy=f"{remedy} the paths and kinds of the sources",
    )


def _more(num: int) -> str:
    return f" (and {num:,} more)" if num else ""


def require_unique_keys(parts: Sequence[Part], *, has_pool_column: bool) -> None:
    """See that a key, by which precomputed vectors are looked up, names one image.

    One file that two pools list is one image, and may well have one vector. Holds eight bytes a row, and two
    more while these are compared; the keys themselves are compared only where these are equal.

    Args:
        parts: of the run, in order.
        has_pool_column: whether the file of vectors tells equal keys of two pools apart.

    Raises:
        ConfigError: naming a key that two images have, both of them, and the remedy.
    """
    hashes = _hashes(parts, by_pool=has_pool_column)
    hashes.sort()
    shared = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    if not len(shared):
        return
    rows = np.flatnonzero(np.isin(_hashes(parts, by_pool=has_pool_column), shared))
    table = row_table(parts, rows, ("key", "path", "offset", "uri"))
    table = table.append_column(
        "place", pc.binary_join_element_wise(table["path"], table["offset"].cast(pa.string()), "\0")
    )
    names = ["pool", "key"] if has_pool_column else ["key"]
    counts = table.group_by(names, use_threads=False).aggregate([("place", "count_distinct")])
    twice = counts.filter(pc.greater(counts["place_count_distinct"], 1))
    if twice.num_rows:
        raise _not_unique(table, twice.select(names), has_pool_column=has_pool_column)


def _hashes(parts: Sequence[Part], *, by_pool: bool) -> UInt64[np.ndarray, " n"]:
    """64 bits for the key of every global row; behind its pool where pools are told apart."""
    hashes = np.zeros(sum(part.num_rows for part in parts), np.uint64)
    start = 0
    for part in parts:
        salt = hashlib.blake2b(part.pool.encode() if by_pool else b"").digest()[:16]
        for batch in read(part.images, ["key"]).to_batches(max_chunksize=BATCH_ROWS):
            keys = batch.column(0).cast(pa.binary()).to_pylist()
            digests = b"".join(hashlib.blake2b(key, digest_size=8, salt=salt).digest() for key in keys)
            hashes[start : start + len(keys)] = np.frombuffer(digests, np.uint64)
            start += len(keys)
    return hashes


def _not_unique(table: pa.Table, twice: pa.Table, *, has_pool_column: bool) -> ConfigError:
    wanted = twice.slice(0, 1).to_pylist()[0]
    mask = pc.equal(table["key"], wanted["key"])
    if has_pool_column:
        mask = pc.and_(mask, pc.equal(table["pool"], wanted["pool"]))
    found = table.filter(mask)
    one = found.slice(0, 1)
    other = found.filter(pc.not_equal(found["place"], one["place"][0])).slice(0, 1)
    (first, second) = pa.concat_tables([one, other]).to_pylist()
    more = f"; {twice.num_rows - 1:,} other keys are shared too" if twice.num_rows > 1 else ""
    remedy = "Give the sources different `key_prefix`es, and the file the keys that come of them"
    if not has_pool_column and first["pool"] != second["pool"]:
        remedy += ", or a column `pool`"
    return ConfigError(
        f"Precomputed embeddings are looked up by key, and {wanted['key']!r} names two images",
        got=f"{first['uri']} in pool {first['pool']}, {second['uri']} in pool {second['pool']}{more}",
        expected="one image a key" + (" within a pool" if has_pool_column else ""),
        remedy=remedy,
    )
