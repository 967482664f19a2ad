"""What is handed to the work of `retrieve` and of its steps, and what they put out."""

from dataclasses import dataclass
from typing import Annotated

from curation.retrieve import Retrieval
from curation.search.backend import Device
from pipelines.engine.digest import Unhashed, Without
from pipelines.engine.step import FileRef
from pipelines.rows.parts import Part, PlacesOf
from pipelines.stages.retrieve.by_lists_tasks import Searched

HITS_FILE = "hits.parquet"  # of retrieve
QUERIES_FILE = "queries.npy"  # of retrieve_queries


@dataclass(frozen=True)
class RetrieveSettings:
    """How a curated pool retrieves."""

    pool: str
    rule: Annotated[Retrieval, Without(("device",), "a search finds the same on each")]
    seed: int | None  # None where nothing is drawn by lot


@dataclass(frozen=True)
class Labels:
    """For every row its cluster (-1: none) and its closeness to the centroid."""

    cluster: FileRef
    score: FileRef


@dataclass(frozen=True)
class RetrieveTask:
    """All images, and those that survive."""

    parts: Annotated[tuple[Part, ...], PlacesOf("described", "embeddings")]
    alive: FileRef
    labels: Labels | None  # by sample, clusters do not matter: who survives does
    searched: Annotated[
        Searched | None,
        Unhashed("it follows from all else, however a search is cut"),
    ] = None


@dataclass(frozen=True)
class QueriesSettings:
    """Whose images are the queries."""

    pool: str


@dataclass(frozen=True)
class QueriesTask:
    """Which rows survive, and of what pool each is."""

    parts: Annotated[tuple[Part, ...], PlacesOf()]
    alive: FileRef


@dataclass(frozen=True)
class BlockSettings:
    """How a block of queries is searched for."""

    neighbours: int
    device: Annotated[Device, Unhashed("a search finds the same on each")]


@dataclass(frozen=True)
class BlockTask:
    """A block of queries, and the parts to search."""

    queries: FileRef
    cut: tuple[int, int]
    parts: Annotated[tuple[Part, ...], PlacesOf("embeddings")]  # the queries lie in them
    group: Annotated[tuple[Part, ...], PlacesOf("described", "embeddings")]
    alive: FileRef
