"""select: hits, caps and pools become one outcome for every row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from curation import storage
from curation.cluster.sampling import Candidates, balanced_sample
from curation.schema import Origin
from curation.select import OUTCOMES, Rows, Sampler, SelectConfig, select
from pipelines.config.run_config import RunConfig
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, FileRef, Item, Step, Work
from pipelines.rows.parts import Part, in_pools, read, read_array, roles
from pipelines.rows.ranks import id_rank
from pipelines.stages.cluster.cluster import Clusters
from pipelines.stages.cluster.hierarchy import Hierarchy
from pipelines.stages.copies.dedup import survivor_rank


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
    inputs = [part.digest("described") for part in parts] + [clusters.alive.sha256]
    inputs += [f"{pool} {file.sha256}" for pool, file in hits.items()]
    included = frozenset(name for name, pool in config.pools.items() if pool.include)
    settings = config.select.model_dump(mode="json") | {"include": sorted(included)}
    if config.select.balanced is not None:
        settings["seed"] = config.seed
        inputs.append(hierarchy.digest)
    step = Step("select", 1, settings, partial(_load, config.select, config.seed, included), "task", "select")
    payload = {"parts": tuple(parts), "alive": clusters.alive, "hits": dict(hits), "hierarchy": hierarchy}
    receipt = runner.run_one(step, Item(tuple(inputs), payload))
    outcome, by, score = (receipt.file(runner.run_dir, f"{name}.npy") for name in ("outcome", "by", "score"))
    return Outcomes(outcome, by, score, receipt.digest)


def _load(config: SelectConfig, seed: int, included: frozenset[str]) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        parts: tuple[Part, ...] = attempt.payload["parts"]
        rows = Rows(
            is_curated=roles(parts, "curated"),
            is_uncurated=roles(parts, "uncurated"),
            is_included=in_pools(parts, included),
            alive=np.asarray(read_array(attempt.payload["alive"])),
            id_rank=id_rank(parts),
            survivor_rank=survivor_rank(parts),
        )
        hits = {pool: read(file) for pool, file in attempt.payload["hits"].items()}
        sampler = _sampler(attempt.payload["hierarchy"], rows, config=config, seed=seed)
        found = select(hits, rows, config=config, sampler=sampler)
        storage.write_vectors(attempt.out / "outcome.npy", found.outcome)
        storage.write_vectors(attempt.out / "by.npy", found.by)
        storage.write_vectors(attempt.out / "score.npy", found.score)
        return {"num_selected": len(found.rows())}

    return work


def _sampler(hierarchy: Hierarchy, rows: Rows, *, config: SelectConfig, seed: int) -> Sampler | None:
    if config.balanced is None:
        return None
    order = config.balanced.order
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
