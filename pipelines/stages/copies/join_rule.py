"""What makes an edge, and the pair of blocks that is joined by it."""

from dataclasses import dataclass
from typing import Annotated

from curation.search.backend import Backend
from pipelines.engine.digest import Unhashed
from pipelines.stages.copies.blocks import Block


@dataclass(frozen=True)
class JoinRule:
    """What makes an edge, and the settings of the join; None switches a kind off.

    Args:
        pixels: whether rows, all of which have one, are compared by their miniatures.
        every_left: whether each row of the left block wants edges of its own, not one row for its hash. Of
            rows of the right block that are equal, the one with the smallest image id stands for all.
    """

    phash_radius: int | None = None
    cosine_from: float | None = None
    pca_radius: int | None = None
    pixels: bool = False
    max_edges_per_row: int | None = None
    every_left: bool = False
    backend: Annotated[Backend, Unhashed("the same edges on each")] = "torch"
    threads: Annotated[int, Unhashed("the same edges on any number of cores")] = 1


@dataclass(frozen=True)
class JoinTask:
    """A pair of blocks, wherever they stand."""

    left: Block
    right: Block
    is_self: bool  # the two are one: equal ones at two places are not
