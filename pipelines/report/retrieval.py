"""Retrieval: curated images beside the pool images that they brought in."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from pipelines.answers.lineage import Lineage
from pipelines.config.run_config import PoolConfig
from pipelines.engine.step import FileRef
from pipelines.lvd import Curated
from pipelines.report.pictures import Picture, Scored, pictures_at, sample
from pipelines.rows.parts import read

MAX_ROWS = 16  # curated images shown, over all pools
MAX_ROWS_BY_POOL = 8
MAX_HITS = 8


@dataclass(frozen=True)
class QueryRow:
    """A curated image and its hits, nearest first."""

    query: Picture
    hits: tuple[Scored, ...]
    num_hits: int


@dataclass(frozen=True)
class PoolRetrieval:
    """What one curated pool retrieved."""

    pool: str
    rule: str
    is_by_cluster: bool
    num_queries: int  # curated images with a hit
    nominal: int
    unique: int
    rows: tuple[QueryRow, ...]

    def pictures(self) -> list[Picture]:
        """In the order shown."""
        return [p for row in self.rows for p in (row.query, *(hit.picture for hit in row.hits))]


@dataclass(frozen=True)
class Retrieved:
    """What each curated pool retrieved, and all together: an image that several brought in is one."""

    pools: tuple[PoolRetrieval, ...]
    nominal: int
    unique: int


def gather_retrieval(
    lineage: Lineage, made: Curated | None, *, pools: Mapping[str, PoolConfig], seed: int
) -> Retrieved | None:
    """Count every curated pool's hits, and draw some of its images by lot; None without `made`."""
    if made is None:
        return None
    num_rows = min(MAX_ROWS_BY_POOL, max(2, MAX_ROWS // max(len(made.hits), 1)))
    found = []
    is_hit = np.zeros(lineage.num_rows, bool)
    for pool, file in made.hits.items():
        rows = read(file, ["row"])["row"].to_numpy()
        is_hit[rows] = True
        queries, num_hits = _queries(file)
        shown = sample(queries, num_rows, seed=seed)
        sizes = dict(zip(queries.tolist(), num_hits.tolist(), strict=True))
        found.append(
            PoolRetrieval(
                pool,
                _rule(pools[pool]),
                pools[pool].retrieval.method == "cluster",
                len(queries),
                len(rows),
                len(np.unique(rows)),
                tuple(_rows(lineage, file, shown, sizes=sizes)),
            )
        )
    return Retrieved(tuple(found), sum(pool.nominal for pool in found), int(is_hit.sum()))


def _rule(pool: PoolConfig) -> str:
    rule = pool.retrieval
    match rule.method:
        case "sample":
            return f"by sample: the {rule.neighbours} nearest pool images of every curated image"
        case "cluster":
            return (
                f"by cluster: at most {rule.per_cluster:,} from every cluster with at least "
                f"{rule.min_seed_hits} curated images, {rule.cap:,} in all"
            )
        case "none":
            return "none: its images are taken as they are"


def _queries(file: FileRef) -> tuple[Int64[np.ndarray, " q"], Int64[np.ndarray, " q"]]:
    query = read(file, ["query"])["query"].drop_null().to_numpy()
    queries, num_hits = np.unique(query[query >= 0], return_counts=True)
    return queries, num_hits


def _rows(
    lineage: Lineage, file: FileRef, shown: Int64[np.ndarray, " m"], *, sizes: Mapping[int, int]
) -> list[QueryRow]:
    query = read(file, ["query"])["query"].fill_null(-1).to_numpy()
    mine = np.flatnonzero(np.isin(query, shown))
    table = read(file, ["row", "query", "score", "rank"]).take(pa.array(mine))
    hits: dict[int, list[dict[str, float]]] = {row: [] for row in shown.tolist()}
    for hit in sorted(table.to_pylist(), key=lambda h: (h["query"], h["rank"], h["row"])):
        if len(hits[hit["query"]]) < MAX_HITS:
            hits[hit["query"]].append(hit)
    wanted = [int(hit["row"]) for some in hits.values() for hit in some]
    pictures = pictures_at(lineage, [*hits, *wanted])
    return [
        QueryRow(pictures[row], tuple(Scored(pictures[int(h["row"])], h["score"]) for h in some), sizes[row])
        for row, some in hits.items()
    ]
