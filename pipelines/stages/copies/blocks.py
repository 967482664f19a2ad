"""Blocks: runs of parts, and which of their rows take part in a join."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

import numpy as np
from jaxtyping import Int64

from pipelines.engine.digest import digest_of
from pipelines.engine.step import FileRef
from pipelines.rows.groups import AlikeParts, make_groups, num_groups
from pipelines.rows.parts import FilesOf, Part, read_array

HASHES_AND_VECTORS = ("described", "copy_vectors")  # names of the parts' files that are joined, as a rule


@dataclass(frozen=True)
class JoinedPart:
    """A part, and which of its rows take part in a join.

    Args:
        part: with the files that are joined.
        rows: the hash of which they are.
        num_rows: how many rows it adds to a block.
    """

    part: Part
    rows: str
    num_rows: int


@dataclass(frozen=True)
class Block:
    """A run of parts of one pool, and which of their rows take part in the join; see `Block.of`.

    Its digest knows nothing of its place in the run: a pool that grows leaves the blocks of others, and its
    own whole ones, as they are, and so the edges between them.

    Args:
        parts: with the files that are joined, and their place in the run; their pool is not to be had.
        rows: ascending global rows, of this block and others.
        digests: for each part, the hash of which of its rows are among them.
        files: names of the parts' files that are joined.
    """

    parts: tuple[Part, ...]
    rows: FileRef
    digests: tuple[str, ...]
    files: tuple[str, ...]

    @classmethod
    def of(cls, run: Sequence[JoinedPart], rows: FileRef, files: Sequence[str]) -> "Block":
        """A block whose parts have no more than what its digest is about, and the place."""
        reads = FilesOf(*files)
        parts = tuple(replace(reads.narrow(one.part), offset=one.part.offset) for one in run)
        return cls(parts, rows, tuple(one.rows for one in run), tuple(files))

    @cached_property
    def digest(self) -> str:
        """Hash of the files, and of which rows take part."""
        reads = FilesOf(*self.files)
        return digest_of(
            [(reads.digest(part), rows) for part, rows in zip(self.parts, self.digests, strict=True)]
        )

    @property
    def first_row(self) -> int:
        """Global row of the block's first row."""
        return self.parts[0].offset


@dataclass(frozen=True)
class AtPlace:
    """Marks a block, or a tuple of them, of which the place counts too: what comes out names global rows."""

    def digest(self, value: Block | tuple[Block, ...]) -> str:
        blocks = value if isinstance(value, tuple) else (value,)
        return digest_of([(block.digest, block.first_row) for block in blocks])

    def narrow(self, value: Block | tuple[Block, ...]) -> Block | tuple[Block, ...]:
        return value  # see `Block.of`


def joined_parts(
    parts: Sequence[Part],
    digests: Sequence[str],
    *,
    takes: Callable[[str], bool],
    counts: Sequence[int] | None = None,
) -> list[JoinedPart]:
    """The parts of the pools that take part.

    Args:
        parts: of the run.
        digests: for each part, the hash of which of its rows take part.
        takes: whether a pool takes part.
        counts: for each part, how many of its rows take part, where that may be few of them; None: all.
    """
    counts = [part.num_rows for part in parts] if counts is None else counts
    everyone = zip(parts, digests, counts, strict=True)
    return [JoinedPart(part, rows, count) for part, rows, count in everyone if takes(part.pool)]


def make_blocks(
    parts: Sequence[JoinedPart],
    rows: FileRef,
    *,
    block_rows: int,
    files: Sequence[str] = HASHES_AND_VECTORS,
) -> list[Block]:
    """Cut the parts of each pool into runs of about `block_rows` rows.

    Args:
        parts: in order.
        rows: the rows that take part.
        block_rows: a run closes once it has so many.
        files: names of the parts' files that are joined.
    """
    pools = [list(own) for _, own in groupby(parts, key=lambda one: one.part.pool)]
    runs = [make_groups(own, [one.num_rows for one in own], rows=block_rows) for own in pools]
    return [Block.of(run, rows, files) for of_pool in runs for run in of_pool]


def num_blocks(parts: Sequence[AlikeParts], *, block_rows: float) -> int:
    """How many blocks `make_blocks` cuts parts into."""
    return sum(num_groups(own, rows=block_rows) for _, own in groupby(parts, key=lambda alike: alike.pool))


def row_digests(parts: Sequence[Part], rows: Int64[np.ndarray, " m"]) -> list[str]:
    """For each part the hash of which of its rows are among `rows` (ascending global rows)."""
    bounds = np.searchsorted(rows, [part.offset for part in parts] + [parts[-1].offset + parts[-1].num_rows])
    local = [rows[i:j] - part.offset for part, i, j in zip(parts, bounds[:-1], bounds[1:], strict=True)]
    return [digest_of(mine.astype(np.uint32).tobytes().hex()) for mine in local]


def joined_rows(block: Block) -> Int64[np.ndarray, " m"]:
    """The block's rows that take part, ascending."""
    rows = read_array(block.rows)
    last = block.parts[-1]
    start, stop = np.searchsorted(rows, [block.first_row, last.offset + last.num_rows])
    return np.asarray(rows[start:stop])
