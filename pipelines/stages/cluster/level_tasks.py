"""What is handed to the work of a level and of its steps, and what they put out."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from curation.cluster.config import LevelConfig
from pipelines.engine.digest import Unhashed
from pipelines.engine.step import FileRef
from pipelines.rows.parts import Part, PlacesOf
from pipelines.stages.cluster.training_set import FOUND_BY_NUMBER

EVERY = "every.npy"  # the rows of all points


class LevelFile(StrEnum):
    """What a level is."""

    CENTROIDS = "centroids.npy"
    PARENT = "parent.npy"


class LevelStateFile(StrEnum):
    """What a clustering leaves."""

    CENTROIDS = "centroids.npy"
    PARENT = "parent.npy"
    KEPT = "kept.npy"


@dataclass(frozen=True)
class LevelSettings:
    """How a level is made."""

    level: LevelConfig
    resampling_steps: int
    iterations: int
    seed: int


@dataclass(frozen=True)
class MadeLevel:
    """A level that steps of its own have made."""

    centroids: FileRef
    parent: FileRef


@dataclass(frozen=True)
class LevelTask:
    """The centroids of the level below."""

    below: FileRef
    made: Annotated[MadeLevel | None, Unhashed("the same bytes, of steps or at once")] = None


@dataclass(frozen=True)
class PointsSettings:
    """How many points a file has."""

    rows: int


@dataclass(frozen=True)
class PointsTask:
    """The centroids of the level below."""

    below: FileRef


@dataclass(frozen=True)
class LevelLabelsSettings:
    """Where points are assigned."""

    device: Annotated[Literal["cpu", "cuda"], Unhashed("the same bytes on any")]


@dataclass(frozen=True)
class LevelLabelsTask:
    """A group of points, each to be given to the nearest centroid."""

    clustering: str
    parts: Annotated[tuple[Part, ...], PlacesOf("embeddings")]
    centroids: Annotated[FileRef | None, FOUND_BY_NUMBER] = None


@dataclass(frozen=True)
class LevelStateSettings:
    """How many points a resampling keeps of each cluster."""

    closest: int


@dataclass(frozen=True)
class GroupLabels:
    """The clusters of a group of points, and their closeness."""

    cluster: FileRef
    score: FileRef


@dataclass(frozen=True)
class Labelled:
    """What a clustering has made of all points."""

    centroids: FileRef
    groups: tuple[GroupLabels, ...]
    part_ends: tuple[int, ...]  # of the files of points


@dataclass(frozen=True)
class LevelStateTask:
    """What clustering `number` leaves for the next."""

    level: str  # identity of the whole: what another version of it has begun is not taken
    number: int
    made_from: Annotated[Labelled | None, FOUND_BY_NUMBER] = None


def points_name(number: int) -> str:
    """The file of points of one number."""
    return f"points-{number:06d}.npy"
