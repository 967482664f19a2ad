"""What makes a picture a copy: its hash and descriptor where the hash knows enough, else its pixels."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int8, Int64, UInt8

from curation.describe.miniature import MAKE_BELOW_BITS
from curation.describe.phash import MIN_CERTAIN_BITS, NUM_BITS
from curation.search.miniatures import NUM_BYTES
from pipelines.rows.parts import Part, column, read


def is_poor(parts: Sequence[Part]) -> Bool[np.ndarray, " n"]:
    """The decoded pictures of poor hash: neither their hashes nor their descriptors make edges.

    What has too little in it for a hash has too little for a descriptor: black, grey and white have one and
    the same `gist`, and so have stripes of many widths.
    """
    return _certain_bits(parts) < MIN_CERTAIN_BITS


def has_miniature(parts: Sequence[Part]) -> Bool[np.ndarray, " n"]:
    """The pictures that are compared by their pixels: those of poor hash, and some of hardly better ones."""
    return _certain_bits(parts) < MAKE_BELOW_BITS


def _certain_bits(parts: Sequence[Part]) -> Int8[np.ndarray, " n"]:
    """Of every row; more than there are where there is no picture."""
    bits = column(parts, "described", "certain_bits")
    found = np.full(len(bits), NUM_BITS + 1, np.int8)
    found[bits.is_valid().to_numpy()] = bits.drop_null().to_numpy()
    return found


def gather_miniatures(parts: Sequence[Part], rows: Int64[np.ndarray, " m"]) -> UInt8[np.ndarray, "m d"]:
    """The miniatures of some global rows that have one, in any order."""
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    found = np.zeros((len(rows), NUM_BYTES), np.uint8)
    for part in parts:
        start, stop = np.searchsorted(ascending, [part.offset, part.offset + part.num_rows])
        if stop > start:
            column_of_part = read(part.described, ["miniature"])["miniature"]
            data = b"".join(column_of_part.take(pa.array(ascending[start:stop] - part.offset)).to_pylist())
            found[order[start:stop]] = np.frombuffer(data, np.uint8).reshape(-1, NUM_BYTES)
    return found
