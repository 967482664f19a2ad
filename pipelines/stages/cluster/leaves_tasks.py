"""What is handed to the steps that split clusters into leaves, and what they put out."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pipelines.engine.step import FileRef, Receipt
from pipelines.rows.parts import Part, PlacesOf


class MembersFile(StrEnum):
    """The rows of every flat cluster, one cluster after the other, and where each begins."""

    ROWS = "rows.npy"
    STARTS = "starts.npy"


class LeavesFile(StrEnum):
    """Leaves: of a group of clusters, by place in the group; of all, by global row."""

    LEAF = "leaf.npy"
    SCORE = "score.npy"
    CENTROIDS = "centroids.npy"


@dataclass(frozen=True)
class Leaves:
    """Leaves of a group of clusters, or of all."""

    leaf: FileRef
    score: FileRef
    centroids: FileRef

    @classmethod
    def of(cls, receipt: Receipt, run_dir: str) -> "Leaves":
        """Those that a step has put out."""
        return cls(*(receipt.file(run_dir, name) for name in LeavesFile))


@dataclass(frozen=True)
class MembersTask:
    """The flat cluster of every row."""

    parts: Annotated[tuple[Part, ...], PlacesOf()]
    cluster: FileRef


@dataclass(frozen=True)
class SplitsSettings:
    """How a flat cluster is split."""

    splits: int
    iterations: int
    seed: int


@dataclass(frozen=True)
class SplitsTask:
    """The vectors of some flat clusters."""

    parts: Annotated[tuple[Part, ...], PlacesOf("embeddings")]
    rows: FileRef
    starts: FileRef
    clusters: range


@dataclass(frozen=True)
class LeavesTask:
    """The leaves of all groups, to be numbered through."""

    rows: FileRef
    groups: tuple[Leaves, ...]
    num_rows: int  # of the run
    dim: int
