"""What is handed to the work of `retrieve` and of its inner steps, and what they put out."""

from dataclasses import dataclass
from typing import Annotated

from curation.retrieve import Retrieval
from curation.search.backend import Device
from curation.search.ivf_config import FaissDevice, IvfConfig, IvfSpec
from pipelines.engine.digest import Unhashed, Without
from pipelines.engine.step import FileRef
from pipelines.rows.parts import Part, PlacesOf
from pipelines.stages.retrieve.neighbours import Found

HITS_FILE = "hits.parquet"  # of retrieve
QUERIES_FILE = "queries.npy"  # of retrieve_queries
INDEX_FILE = "index.npy"  # of retrieve_index
Cuts = tuple[tuple[int, int], ...]  # blocks of a pool's queries: first, and last + 1


@dataclass(frozen=True)
class Searched:
    """What was found in the groups of the pool: of every block of queries, and by lists of sampled ones."""

    blocks: tuple[tuple[Found, ...], ...]
    truth: tuple[Found, ...] = ()  # exact; empty where every search is
    index: IvfSpec | None = None


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


@dataclass(frozen=True)
class IndexSettings:
    """How an index is trained: the same for every pool that asks for such an index."""

    ivf: Annotated[
        IvfConfig, Without(("num_probes", "device", "min_recall", "recall_rows"), "they say how to search it")
    ]
    seed: int


@dataclass(frozen=True)
class IndexTask:
    """The surviving images of the pool, which an index is trained on."""

    parts: Annotated[tuple[Part, ...], PlacesOf("embeddings")]  # of the run
    alive: FileRef


@dataclass(frozen=True)
class Question:
    """What one curated pool asks of a shard."""

    pool: str
    neighbours: int
    recall_rows: int  # queries that are searched for exactly as well


@dataclass(frozen=True)
class SearchSettings:
    """How a shard is searched, and for what. Not what recall is enough: what is refused is there for less."""

    questions: tuple[Question, ...]
    num_probes: int
    device: FaissDevice
    seed: int


@dataclass(frozen=True)
class SearchTask:
    """A shard, the trained index that it is put into, and the queries."""

    group: Annotated[tuple[Part, ...], PlacesOf("described", "embeddings")]  # of the pool: the shard
    parts: Annotated[tuple[Part, ...], PlacesOf("embeddings")]  # of the run: the queries lie in them
    alive: FileRef
    index: FileRef
    spec: IvfSpec
    cuts: tuple[Cuts, ...]  # of the queries of every question
