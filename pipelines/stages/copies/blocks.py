"""Blocks: runs of parts, and which of their rows take part in a join."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Float16, Int64, UInt32

from curation import storage
from pipelines.engine.digest import digest_of
from pipelines.engine.step import Facts, FileRef, Receipt
from pipelines.rows.groups import AlikeParts, make_groups, num_groups
from pipelines.rows.parts import FilesOf, Part, gather_vectors, read_array
from pipelines.stages.copies.poor_pictures import has_miniature, is_poor

HASHES_AND_VECTORS = ("described", "copy_vectors")  # names of the parts' files that are joined, as a rule


@dataclass(frozen=True)
class JoinedPart:
    """A part, and which of its rows take part in a join."""

    part: Part  # with the files that are joined
    rows: str  # the hash of which they are
    num_rows: int  # that it adds to a block


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


def make_blocks(
    parts: Sequence[JoinedPart],
    rows: FileRef,
    *,
    block_rows: int,
    files: Sequence[str],
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


class JoinedFile(StrEnum):
    """What is put out of rows that take part: all of them, and those that are compared by their pixels."""

    ROWS = "joined.npy"
    PIXELS = "pixels.npy"


def write_joined(out: Path, parts: Sequence[Part], rows: Int64[np.ndarray, " m"]) -> Facts:
    """Write down which global rows take part, ascending; returns facts for `JoinedRows`."""
    with_pixels = rows[has_miniature(parts)[rows]]
    storage.write_vectors(out / JoinedFile.ROWS, rows)
    storage.write_vectors(out / JoinedFile.PIXELS, with_pixels)
    every, few = _by_part(parts, rows), _by_part(parts, with_pixels)
    return {
        "digests": [digest_of(own.tobytes().hex()) for own in every],
        "pixel_digests": [digest_of(own.tobytes().hex()) for own in few],
        "pixel_counts": [len(own) for own in few],
    }


def _by_part(parts: Sequence[Part], rows: Int64[np.ndarray, " m"]) -> list[UInt32[np.ndarray, " _"]]:
    """Rows by their places in each part."""
    pieces = np.split(rows, np.searchsorted(rows, [part.offset for part in parts[1:]]))
    return [(own - part.offset).astype(np.uint32) for part, own in zip(parts, pieces, strict=True)]


@dataclass(frozen=True)
class JoinedRows:
    """The rows that take part, and the blocks that those of some pools make."""

    parts: Sequence[Part]  # of the run
    written: Receipt  # of the step that called `write_joined`
    run_dir: str
    block_rows: int  # at which a block closes

    def blocks(
        self,
        takes: Callable[[str], bool],
        files: Sequence[str] = HASHES_AND_VECTORS,
        *,
        only_pixels: bool = False,
    ) -> list[Block]:
        """The blocks of some pools.

        Args:
            takes: whether a pool takes part.
            files: names of the parts' files that are joined.
            only_pixels: of the rows with a miniature alone: few of all, so that a block spans many parts;
                there is none where no row has one.
        """
        facts = self.written.facts
        digests, counts, file = facts["digests"], [part.num_rows for part in self.parts], JoinedFile.ROWS
        if only_pixels:
            digests, counts, file = facts["pixel_digests"], facts["pixel_counts"], JoinedFile.PIXELS
        everyone = zip(self.parts, digests, counts, strict=True)
        mine = [JoinedPart(part, rows, num) for part, rows, num in everyone if takes(part.pool)]
        if only_pixels and not any(one.num_rows for one in mine):
            return []
        rows = self.written.file(self.run_dir, file)
        return make_blocks(mine, rows, block_rows=self.block_rows, files=files)


def joined_rows(block: Block) -> Int64[np.ndarray, " m"]:
    """The block's rows that take part, ascending."""
    rows = read_array(block.rows)
    last = block.parts[-1]
    start, stop = np.searchsorted(rows, [block.first_row, last.offset + last.num_rows])
    return np.asarray(rows[start:stop])


def copy_vectors(block: Block, rows: Int64[np.ndarray, " m"]) -> Float16[np.ndarray, "m d"]:
    """The copy descriptors of some of a block's rows, ascending; zeros for pictures of poor hash."""
    vectors = gather_vectors(block.parts, "copy_vectors", rows)
    vectors[is_poor(block.parts)[rows - block.first_row]] = 0
    return vectors


def rows_with_vectors(
    block: Block, rows: Int64[np.ndarray, " m"]
) -> tuple[Int64[np.ndarray, " k"], Float16[np.ndarray, "k d"]]:
    """Those of some ascending rows of a block that have a copy descriptor that knows enough, and these."""
    from curation.search.product import nonzero_rows  # torch: seconds, which no dry run waits for

    vectors = copy_vectors(block, rows)
    has = nonzero_rows(vectors)
    return (rows, vectors) if has.all() else (rows[has], vectors[has])
