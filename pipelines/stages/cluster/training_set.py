"""What a clustering is trained on, and with which settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from curation.cluster.config import ClusterConfig
from pipelines.engine.digest import Without
from pipelines.engine.step import FileRef
from pipelines.rows.groups import make_groups
from pipelines.rows.parts import Part


@dataclass(frozen=True)
class ClusterSettings:
    """How vectors are clustered."""

    config: Annotated[
        ClusterConfig, Without(("group_rows", "device"), "the same bytes however work is cut, on any device")
    ]
    seed: int

    @property
    def num_gpus(self) -> int:
        """GPUs of a worker whose work is spread over groups."""
        return int(self.config.device == "cuda")


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
    """

    parts: tuple[Part, ...]
    part_rows: tuple[int, ...]
    rows: FileRef

    @classmethod
    def on(cls, parts: Sequence[Part], part_rows: Sequence[int], rows: FileRef) -> "Training":
        """Leave out the parts that hold none of the rows."""
        used = [(part, own) for part, own in zip(parts, part_rows, strict=True) if own]
        return cls(tuple(part for part, _ in used), tuple(own for _, own in used), rows)

    def groups(self, settings: KMeansSettings) -> list[tuple[Part, ...]]:
        """The parts, cut into units of work."""
        rows = settings.config.rows_of_group(settings.num_clusters)
        return make_groups(self.parts, self.part_rows, rows=rows)
