"""What a clustering is trained on, and with which settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from curation.cluster.config import ClusterConfig
from pipelines.engine.digest import Unhashed, Without
from pipelines.engine.step import FileRef
from pipelines.rows.parts import Part

# Of what an inner step's item was made from.
FOUND_BY_NUMBER = Unhashed(
    "the clustering and a number say which it is, and find and remove it when what it was made from is gone"
)


@dataclass(frozen=True)
class ClusterSettings:
    """How vectors are clustered."""

    config: Annotated[
        ClusterConfig, Without(("group_rows", "device"), "the same bytes however work is cut, on any device")
    ]
    seed: int


@dataclass(frozen=True)
class KMeansSettings(ClusterSettings):
    """How k-means is done, once it is known into how many clusters."""

    num_clusters: int


@dataclass(frozen=True)
class Training:
    """What k-means is trained on.

    Args:
        parts: that hold a row to train on.
        part_rows: how many rows each of them has to train on.
        rows: global rows, ascending (a `.npy` file).
        digest: hash of all that the rows and their vectors depend on.
        num_clusters: k.
    """

    parts: tuple[Part, ...]
    part_rows: tuple[int, ...]
    rows: FileRef
    digest: str
    num_clusters: int

    @classmethod
    def on(
        cls, parts: Sequence[Part], part_rows: Sequence[int], rows: FileRef, *, digest: str, num_clusters: int
    ) -> "Training":
        """Leave out the parts that hold none of the rows."""
        used = [(part, own) for part, own in zip(parts, part_rows, strict=True) if own]
        return cls(tuple(part for part, _ in used), tuple(own for _, own in used), rows, digest, num_clusters)
