"""What is handed to the steps of k-means, and what they put out."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from curation.cluster.stopping import Evaluation
from pipelines.engine.step import FileRef
from pipelines.rows.parts import Part, PlacesOf
from pipelines.stages.cluster.training_set import FOUND_BY_NUMBER

CENTROIDS = "centroids.npy"  # of a state


class SumsFile(StrEnum):
    """What a group puts out in one iteration."""

    SUMS = "sums.npy"
    COUNTS = "counts.npy"


@dataclass(frozen=True)
class Fitted:
    """The result: centroids, and the inertia before the first update and after each."""

    centroids: FileRef
    inertia: list[float]


@dataclass(frozen=True)
class Sampled:
    """State 0 is made from a sample of these rows, in one task."""

    parts: tuple[Part, ...]
    rows: FileRef


@dataclass(frozen=True)
class Drawn:
    """State 0 is made from the seeds of every round, drawn by steps of their own."""

    seeds: tuple[FileRef, ...]


@dataclass(frozen=True)
class GroupSums:
    """The sums of a group."""

    sums: FileRef
    counts: FileRef


@dataclass(frozen=True)
class Summed:
    """A later state is made from the one before it, and the sums of all groups."""

    centroids: FileRef
    history: tuple[Evaluation, ...]
    groups: tuple[GroupSums, ...]


@dataclass(frozen=True)
class StateTask:
    """The state of one number."""

    clustering: str  # digest of all that its rows and their vectors depend on
    number: int
    made_from: Annotated[Sampled | Drawn | Summed | None, FOUND_BY_NUMBER] = None


@dataclass(frozen=True)
class SumsTask:
    """The rows of a group to sum, each with the nearest of a state's centroids."""

    clustering: str
    number: int  # of the state
    parts: Annotated[tuple[Part, ...], PlacesOf("embeddings")]
    rows: FileRef
    centroids: Annotated[FileRef | None, FOUND_BY_NUMBER] = None
