"""select: hits, caps and pools become one outcome for every row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Int64

from curation import storage
from curation.cluster.sampling import Candidates, balanced_sample
from curation.schema import Origin
from curation.select import OUTCOMES, Sampler, SelectConfig, SelectionRows, select
from pipelines.config.run_config import RunConfig
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, Facts, FileRef, Item, Step, Work
from pipelines.rows.parts import Part, PlacesOf, in_pools, read, read_array, roles
from pipelines.rows.ranks import id_rank
from pipelines.stages.cluster.cluster import Clusters
from pipelines.stages.cluster.hierarchy import Hierarchy
from pipelines.stages.copies.dedup import survivor_rank


class SelectFile(StrEnum):
    """What select puts out."""

    OUTCOME = "outcome.npy"
    BY = "by.npy"
    SCORE = "score.npy"


@dataclass(frozen=True)
class SelectSettings:
    """What enters the dataset."""

    config: SelectConfig
    included: frozenset[str]  # curated pools whose own images enter
    seed: int | None  # None where nothing is drawn by lot


@dataclass(frozen=True)
class SelectTask:
    """All images, and what the stages before have said of them."""

    parts: Annotated[tuple[Part, ...], PlacesOf("described")]
    alive: FileRef
    hits: tuple[tuple[str, FileRef], ...]  # of every curated pool, in pool order: it may break ties
    hierarchy: Hierarchy | None  # None where no balanced sample is drawn


@dataclass(frozen=True)
class Outcomes:
    """For every global row an index into `curation.select.OUTCOMES`, the row that caused it, and a score."""

    outcome: FileRef
    by: FileRef
    score: FileRef
    digest: str


def select_images(
    runner: Runner,
    config: RunConfig,
    parts: Sequence[Part],
    *,
    clusters: Clusters,
    hierarchy: Hierarchy,
    hits: Mapping[str, FileRef],
) -> Outcomes:
    """Decide what is in the dataset."""
    included = frozenset(name for name, pool in config.pools.items() if pool.include)
    is_balanced = config.select.balanced is not None
    settings = SelectSettings(config.select, included, config.seed if is_balanced else None)
    step = Step("select", 1, settings, _load, "select")
    task = SelectTask(tuple(parts), clusters.alive, tuple(hits.items()), hierarchy if is_balanced else None)
    receipt = runner.run_one(step, Item(task))
    outcome, by, score = (receipt.file(runner.run_dir, name) for name in SelectFile)
    return Outcomes(outcome, by, score, receipt.digest)


def _load(settings: SelectSettings) -> Work[SelectTask]:
    def work(attempt: Attempt[SelectTask]) -> Facts:
        task, parts = attempt.task, attempt.task.parts
        rows = SelectionRows(
            is_curated=roles(parts, "curated"),
            is_uncurated=roles(parts, "uncurated"),
            is_included=in_pools(parts, settings.included),
            alive=np.asarray(read_array(task.alive)),
            id_rank=id_rank(parts),
            survivor_rank=survivor_rank(parts),
        )
        hits = {pool: read(file) for pool, file in task.hits}
        found = select(hits, rows, config=settings.config, sampler=_sampler(task.hierarchy, rows, settings))
        storage.write_vectors(attempt.out / SelectFile.OUTCOME, found.outcome)
        storage.write_vectors(attempt.out / SelectFile.BY, found.by)
        storage.write_vectors(attempt.out / SelectFile.SCORE, found.score)
        return {"num_selected": len(found.rows())}

    return work


def _sampler(hierarchy: Hierarchy | None, rows: SelectionRows, settings: SelectSettings) -> Sampler | None:
    balanced, seed = settings.config.balanced, settings.seed
    if balanced is None:
        return None
    assert hierarchy is not None, "a balanced sample without clusters"
    assert seed is not None, "a balanced sample without a seed"
    order = balanced.order
    leaf, score = read_array(hierarchy.leaf), read_array(hierarchy.score)
    parents = [np.asarray(read_array(file)) for file in hierarchy.parents]

    def sample(candidates: Int64[np.ndarray, " c"], num_images: int) -> Bool[np.ndarray, " c"]:
        found = Candidates(leaf[candidates], score[candidates], rows.id_rank[candidates])
        return balanced_sample(found, parents, budget=num_images, order=order, seed=seed)

    return sample


def origin_of(code: int) -> Origin:
    """The origin that a kept row's outcome stands for."""
    outcome = OUTCOMES[code]
    assert outcome is not None
    assert outcome.origin is not None
    return outcome.origin
