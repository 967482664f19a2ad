"""What is handed to the work of `cluster` and of its steps, and what they put out."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pipelines.engine.digest import Unhashed
from pipelines.engine.step import FileRef
from pipelines.rows.parts import Part, PlacesOf
from pipelines.stages.cluster.kmeans_tasks import Fitted


class ClusterFile(StrEnum):
    """What cluster puts out; a group of parts, its clusters and scores."""

    ALIVE = "alive.npy"
    CLUSTER = "cluster.npy"
    SCORE = "score.npy"
    CENTROIDS = "centroids.npy"


class ClusterRowsFile(StrEnum):
    """What is known before there are clusters."""

    ALIVE = "alive.npy"
    TRAINED_ON = "trained_on.npy"


@dataclass(frozen=True)
class MadeInSteps:
    """What steps of its own have made for `cluster` to put together."""

    alive: FileRef
    fitted: Fitted
    cluster: tuple[FileRef, ...]  # by groups of all parts
    score: tuple[FileRef, ...]
    num_trained_on: int


@dataclass(frozen=True)
class ClusterTask:
    """The vectors of what survives."""

    parts: Annotated[tuple[Part, ...], PlacesOf("described", "verdicts", "embeddings")]
    copies: FileRef
    leaks: FileRef
    made: Annotated[MadeInSteps | None, Unhashed("the same bytes, of steps or at once")] = None


@dataclass(frozen=True)
class ClusterRowsTask:
    """What tells which rows survive."""

    parts: Annotated[tuple[Part, ...], PlacesOf("described", "verdicts")]
    copies: FileRef
    leaks: FileRef


@dataclass(frozen=True)
class LabelsTask:
    """The vectors of a group of parts, each to be given to the nearest centroid."""

    clustering: str  # nothing that another version of `cluster` has begun is taken
    parts: Annotated[tuple[Part, ...], PlacesOf("embeddings")]
    alive: FileRef
    centroids: FileRef
