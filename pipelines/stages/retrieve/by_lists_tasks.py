"""What is handed to a search by inverted lists, and what it puts out."""

from dataclasses import dataclass
from typing import Annotated

from curation.search.ivf_config import Device, IvfConfig, IvfSpec
from pipelines.engine.digest import Without
from pipelines.engine.step import FileRef
from pipelines.rows.parts import Part, PlacesOf
from pipelines.stages.retrieve.neighbours import Found

INDEX_FILE = "index.npy"  # of retrieve_index
Cuts = tuple[tuple[int, int], ...]  # blocks of a pool's queries: first, and last + 1


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
    device: Device
    seed: int


@dataclass(frozen=True)
class SearchTask:
    """A shard, the trained index that it is put into, and the queries."""

    group: Annotated[tuple[Part, ...], PlacesOf("described", "embeddings")]  # of the pool: the shard
    parts: Annotated[tuple[Part, ...], PlacesOf("embeddings")]  # of the run: the queries lie in them
    alive: FileRef
    index: FileRef
    spec: IvfSpec
    margin: float
    cuts: tuple[Cuts, ...]  # of the queries of every question


@dataclass(frozen=True)
class Searched:
    """What was found in the groups of the pool: of every block of queries, and by lists of sampled ones."""

    blocks: tuple[tuple[Found, ...], ...]
    truth: tuple[Found, ...] = ()  # exact; empty where every search is
    index: IvfSpec | None = None
