"""What is in the dataset, and why: curated images, retrieved images, caps, equal ids.

Every row gets one outcome. In order:

1. Rows that an earlier stage dropped keep outcome `DEAD`; holdout rows never enter.
2. Each curated pool's hits are reduced to one per image (`best_hits`) and cut to that pool's cap.
3. Images with equal ids collapse to one, even when dedup was off.
4. Where a balanced sample is asked for, it is drawn from the pool images that nothing has brought in.
5. The cap on retrieved and sampled images is applied to what is left, so that it counts distinct images.

Under a cap the best scores stay, ties by image id. Without any curated pool there is nothing to be close
to: every image that is alive is selected, with origin and reason `sampled`, and curation is dedup and
filtering alone. A cap then cuts by image id, and since ids are hashes that is a uniform sample; a sample that
is balanced over the clusters of the pool is the better one where the pool has a long tail.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64, Int8, Int64
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from curation.errors import ConfigError
from curation.schema import Origin, Stage


class BalancedSampling(BaseModel):
    """So many images of the pool, spread evenly over its clusters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_images: int = Field(
        ge=1, description="images sampled, besides what is retrieved; fewer only where the pool has no more"
    )
    order: Literal["random", "closest"] = Field(
        "random", description="which images a cluster gives: drawn by lot, or those nearest its centroid"
    )


class SelectConfig(BaseModel):
    """What enters the dataset of all that survived."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_images: int | None = Field(
        None,
        ge=1,
        description="retrieved (or sampled) images in all; null: no cap. Curated ones are not counted",
    )
    max_images_by_pool: dict[str, PositiveInt] = Field(
        default_factory=dict, description="curated pool -> images that it brings in at most; missing: no cap"
    )
    balanced: BalancedSampling | None = Field(
        None,
        description="a sample of the pool, balanced over the levels of `hierarchy`, or over `cluster` alone "
        "where there is none; null: no sample, and without a curated pool everything",
    )


class Outcome(NamedTuple):
    """How a row ends: kept with an origin, or dropped (`origin` None) by a stage for a reason."""

    stage: Stage
    reason: str
    origin: Origin | None


# What a code in `Selection.outcome` means; DEAD rows were decided by an earlier stage.
OUTCOMES: tuple[Outcome | None, ...] = (
    None,
    Outcome("select", "curated", "curated"),
    Outcome("select", "retrieved_by_sample", "retrieved"),
    Outcome("select", "retrieved_by_cluster", "retrieved"),
    Outcome("select", "sampled", "sampled"),
    Outcome("retrieve", "not_retrieved", None),
    Outcome("select", "over_cap", None),
    Outcome("select", "equal_id", None),
    Outcome("select", "query_only", None),
    Outcome("select", "holdout", None),
)
DEAD, CURATED, BY_SAMPLE, BY_CLUSTER, SAMPLED = range(5)
NOT_RETRIEVED, OVER_CAP, EQUAL_ID, QUERY_ONLY, HOLDOUT = range(5, 10)
METHODS = {"sample": BY_SAMPLE, "cluster": BY_CLUSTER}


@dataclass(frozen=True)
class Selection:
    """One outcome for every global row, and what caused it. 17 bytes a row."""

    outcome: Int8[np.ndarray, "n"]  # an index into OUTCOMES
    by: Int64[
        np.ndarray, "n"
    ]  # global row: best-scoring query, or the image that stays of equal ids; -1: none
    score: Float64[np.ndarray, "n"]  # with `by`; NaN: none

    def rows(self) -> Int64[np.ndarray, "s"]:
        """Global rows of the dataset, ascending."""
        return np.flatnonzero((self.outcome >= CURATED) & (self.outcome <= SAMPLED))


@dataclass(frozen=True)
class SelectionRows:
    """What selection needs to know of every global row; 20 bytes a row."""

    is_curated: Bool[np.ndarray, "n"]
    is_uncurated: Bool[np.ndarray, "n"]  # neither of the two: holdout
    is_included: Bool[np.ndarray, "n"]  # of a curated pool whose images enter, and not only find others
    alive: Bool[np.ndarray, "n"]  # dropped by no stage so far
    id_rank: Int64[np.ndarray, "n"]  # order of image ids; equal exactly where ids are equal
    survivor_rank: Int64[np.ndarray, "n"]  # which of equal images stays: the lowest


@dataclass(frozen=True)
class _BestHits:
    """One hit for each of some rows, sorted by row."""

    row: Int64[np.ndarray, "h"]
    query: Int64[np.ndarray, "h"]
    score: Float64[np.ndarray, "h"]
    outcome: Int8[np.ndarray, "h"]


# Chooses, of some global rows (ascending), so many: a mask over them.
Sampler = Callable[[Int64[np.ndarray, "c"], int], Bool[np.ndarray, "c"]]


def select(
    hits: Mapping[str, pa.Table], rows: SelectionRows, *, config: SelectConfig, sampler: Sampler | None = None
) -> Selection:
    """Decide for every row whether it is in the dataset.

    Args:
        hits: `schema.HITS` of each curated pool, in pool order; a pool that found nothing has an entry too.
        rows: roles, survivors and orders of all global rows.
        config: caps, and the sample.
        sampler: draws the balanced sample; needed where the config has one.

    Returns:
        The outcome of each row. Curated rows that only served as queries end as `query_only`.

    Raises:
        ConfigError: `max_images_by_pool` names a pool that has no entry in `hits`.

    Source: arXiv:2304.07193, §3: the dataset is the curated sets and what they retrieved.
    """
    _require_known(config.max_images_by_pool, hits)
    num_rows = len(rows.alive)
    outcome = np.zeros(num_rows, np.int8)
    outcome[rows.alive] = np.where(rows.is_curated | rows.is_uncurated, NOT_RETRIEVED, HOLDOUT)[rows.alive]
    selection = Selection(outcome, np.full(num_rows, -1, np.int64), np.full(num_rows, np.nan))
    eligible = rows.alive & rows.is_uncurated
    curated = rows.alive & rows.is_curated
    outcome[curated] = np.where(rows.is_included[curated], CURATED, QUERY_ONLY)
    if hits:
        _bring_in(selection, hits, rows=rows, eligible=eligible, config=config)
    if config.balanced or not hits:
        outcome[eligible & ((outcome == NOT_RETRIEVED) | (outcome == OVER_CAP))] = SAMPLED
    _collapse_equal_ids(selection, rows)
    if config.balanced:
        assert sampler is not None, "a balanced sample without a sampler"
        _sample(selection, sampler, num_images=config.balanced.num_images, max_images=config.max_images)
    _cap(selection, rows, max_images=config.max_images)
    return selection


def _require_known(capped: Mapping[str, int], hits: Mapping[str, pa.Table]) -> None:
    if unknown := sorted(set(capped) - set(hits)):
        raise ConfigError(
            "max_images_by_pool names what is no curated pool",
            got=", ".join(unknown),
            expected=f"names out of {sorted(hits)}",
            remedy="Correct or remove the name",
        )


def _bring_in(
    selection: Selection,
    hits: Mapping[str, pa.Table],
    *,
    rows: SelectionRows,
    eligible: Bool[np.ndarray, "n"],
    config: SelectConfig,
) -> None:
    """Mark what the curated pools retrieved; of several pools that bring in an image the best hit counts."""
    within, beyond = [], []
    for pool, table in hits.items():
        best = _best(_read(table, eligible), rows.id_rank)
        cap = config.max_images_by_pool.get(pool, len(best.row))
        order = np.lexsort((best.row, rows.id_rank[best.row], -best.score))
        within.append(_take(best, np.sort(order[:cap])))
        beyond.append(_take(best, np.sort(order[cap:])))
    # An image beyond one pool's cap may be within another's, so the kept ones are written last.
    for group, code in ((beyond, OVER_CAP), (within, None)):
        best = _best(_concat(group), rows.id_rank)
        selection.outcome[best.row] = best.outcome if code is None else code
        selection.by[best.row] = best.query
        selection.score[best.row] = best.score


def _collapse_equal_ids(selection: Selection, rows: SelectionRows) -> None:
    """Of selected rows with one image id keep the first survivor; the others name it."""
    chosen = selection.rows()
    ranks = rows.id_rank[chosen]
    order = np.lexsort((rows.survivor_rank[chosen], ranks))
    chosen, ranks = chosen[order], ranks[order]
    first = np.diff(ranks, prepend=ranks[:1] - 1) != 0
    stays = chosen[np.flatnonzero(first)][np.cumsum(first) - 1]
    extra = ~first
    selection.outcome[chosen[extra]] = EQUAL_ID
    selection.by[chosen[extra]] = stays[extra]
    selection.score[chosen[extra]] = 1.0


def _sample(selection: Selection, sampler: Sampler, *, num_images: int, max_images: int | None) -> None:
    """Of all that may be sampled keep what the sampler chooses: it must not take what the cap would cut."""
    candidates = np.flatnonzero(selection.outcome == SAMPLED)
    if max_images is not None:
        retrieved = np.isin(selection.outcome, (BY_SAMPLE, BY_CLUSTER))
        num_images = min(num_images, max(0, max_images - int(np.count_nonzero(retrieved))))
    chosen = sampler(candidates, num_images)
    selection.outcome[candidates[~chosen]] = OVER_CAP
    # What a curated pool's cap had cut is here for its own sake now.
    selection.by[candidates[chosen]] = -1
    selection.score[candidates[chosen]] = np.nan


def _cap(selection: Selection, rows: SelectionRows, *, max_images: int | None) -> None:
    """Drop what is over the cap on images that are not curated: worst scores first, then largest ids."""
    if max_images is None:
        return
    chosen = np.flatnonzero((selection.outcome >= BY_SAMPLE) & (selection.outcome <= SAMPLED))
    score = np.nan_to_num(selection.score[chosen], nan=0.0)
    order = np.lexsort((chosen, rows.id_rank[chosen], -score))
    selection.outcome[chosen[order[max_images:]]] = OVER_CAP


def _read(hits: pa.Table, eligible: Bool[np.ndarray, "n"]) -> _BestHits:
    """The columns of `schema.HITS` as arrays, for eligible rows only; query -1 where there is none."""
    row = hits["row"].to_numpy()
    keep = eligible[row]
    outcome = np.zeros(len(row), np.int8)
    for method, code in METHODS.items():
        outcome[pc.equal(hits["method"].cast(pa.string()), method).to_numpy()] = code
    query = pc.fill_null(hits["query"], -1).to_numpy()
    return _BestHits(row[keep], query[keep], hits["score"].to_numpy()[keep], outcome[keep])


def _best(hits: _BestHits, id_rank: Int64[np.ndarray, "n"]) -> _BestHits:
    """For each row its best-scoring hit; ties by the query's image id, then its row, then the order given."""
    query_rank = np.where(hits.query >= 0, id_rank[hits.query], np.iinfo(np.int64).max)
    order = np.lexsort((hits.query, query_rank, -hits.score, hits.row))
    row = hits.row[order]
    return _take(hits, order[np.diff(row, prepend=row[:1] - 1) != 0])


def _take(hits: _BestHits, index: Int64[np.ndarray, "i"]) -> _BestHits:
    return _BestHits(hits.row[index], hits.query[index], hits.score[index], hits.outcome[index])


def _concat(groups: list[_BestHits]) -> _BestHits:
    return _BestHits(
        np.concatenate([g.row for g in groups]),
        np.concatenate([g.query for g in groups]),
        np.concatenate([g.score for g in groups]),
        np.concatenate([g.outcome for g in groups]),
    )
