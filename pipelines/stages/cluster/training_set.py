"""What a clustering is trained on, and with which settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curation.cluster.config import ClusterConfig
from pipelines.engine.step import FileRef
from pipelines.rows.parts import Part


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


def settings_of(config: ClusterConfig, seed: int) -> dict[str, Any]:
    """What of the config changes the result."""
    return {**config.model_dump(mode="json", exclude={"group_rows", "device"}), "seed": seed}
