"""What is handed to the steps of k-means++, and what they put out."""

from dataclasses import dataclass
from typing import Annotated

from pipelines.engine.step import FileRef
from pipelines.rows.parts import Part, PlacesOf
from pipelines.stages.cluster.training_set import FOUND_BY_NUMBER

VECTORS = "vectors.npy"  # of a group of the sample
SEEDS = "seeds.npy"  # of a round
DISTANCE = "distance.npy"  # of a group, from the nearest of all seeds up to a round


@dataclass(frozen=True)
class SampleTask:
    """The vectors of a group of the sample, to be gathered."""

    clustering: str  # digest of all that its rows and their vectors depend on
    parts: Annotated[tuple[Part, ...], PlacesOf("embeddings")]
    rows: FileRef
    cut: range  # of the sample


@dataclass(frozen=True)
class SeedCandidates:
    """What a round draws from."""

    samples: tuple[FileRef, ...]  # vectors, by groups
    sizes: tuple[int, ...]
    distances: tuple[FileRef, ...]  # none of the first round
    num_drawn: int  # by the rounds before


@dataclass(frozen=True)
class DrawTask:
    """The seeds of a round."""

    clustering: str
    number: int  # of the round
    made_from: Annotated[SeedCandidates | None, FOUND_BY_NUMBER] = None


@dataclass(frozen=True)
class Nearer:
    """Seeds that a vector may be nearer to than it was to any before."""

    vectors: FileRef
    before: FileRef | None  # distances from the seeds of the rounds before
    seeds: tuple[FileRef, ...]  # of this round, or of all where `before` is None


@dataclass(frozen=True)
class DistancesTask:
    """The distances of a group after a round."""

    clustering: str
    number: int  # of the round
    cut: range
    made_from: Annotated[Nearer | None, FOUND_BY_NUMBER] = None
