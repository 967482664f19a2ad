"""pca_hash: directions are fitted on a sample of copy descriptors, and every part is hashed along them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import pyarrow as pa

from curation import storage
from curation.cluster.schedule import sample_rows
from curation.dedup.pca_hash import NUM_BITS, PcaHash, fit_pca_hash, pca_hash
from curation.errors import ConfigError
from pipelines.config.run_config import RunConfig
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, Facts, FileRef, Item, NoSettings, Step, Work
from pipelines.rows.parts import FilesOf, Part, PlacesOf, gather_vectors, is_null, read_array, roles
from pipelines.stages.copies.poor_pictures import is_poor

FIT = "fit.npy"
HASHES = "hashes.parquet"


@dataclass(frozen=True)
class FitSettings:
    """The sample."""

    sample_rows: int
    seed: int


@dataclass(frozen=True)
class FitTask:
    """The copy descriptors of all, of which a sample is drawn."""

    parts: Annotated[tuple[Part, ...], PlacesOf("described", "copy_vectors")]


@dataclass(frozen=True)
class HashTask:
    """The copy descriptors of a part, and what was fitted."""

    part: Annotated[Part, FilesOf("described", "copy_vectors")]
    fit: FileRef


def hash_descriptors(runner: Runner, config: RunConfig, parts: Sequence[Part]) -> tuple[Part, ...]:
    """Hash every copy descriptor, where a rule asks for PCA hashes.

    The fit depends on the whole: a pool that grows is hashed anew, which costs one product a part.
    """
    if config.dedup.pca_radius is None and config.decontaminate.pca_radius is None:
        return tuple(parts)
    settings = FitSettings(config.dedup.pca_sample_rows, config.seed)
    fit_step = Step("pca_fit", 3, settings, _load_fit, "dedup")
    fit = runner.run_one(fit_step, Item(FitTask(tuple(parts)))).file(runner.run_dir, FIT)
    step = Step("pca_hash", 2, NoSettings(), _load_hashes, "dedup")
    receipts = runner.run(step, [Item(HashTask(part, fit), part.num_rows) for part in parts])
    return tuple(
        replace(part, pca_hashes=receipt.file(runner.run_dir, HASHES))
        for part, receipt in zip(parts, receipts, strict=True)
    )


def _load_fit(settings: FitSettings) -> Work[FitTask]:
    def work(attempt: Attempt[FitTask]) -> Facts:
        parts = attempt.task.parts
        is_sound = is_null(parts, "described", "reason") & ~is_poor(parts)
        candidates = np.flatnonzero(is_sound & ~roles(parts, "holdout"))
        drawn = candidates[sample_rows(len(candidates), settings.sample_rows, seed=settings.seed)]
        sample = gather_vectors(parts, "copy_vectors", drawn)
        fitted = fit_pca_hash(sample)
        num_directions = int(fitted.directions.any(axis=1).sum())
        if sample.any() and num_directions < NUM_BITS:
            raise ConfigError(
                "The descriptors vary in too few directions for a PCA hash: the other bits would be equal",
                got=f"{num_directions} directions in {len(drawn)} descriptors of {sample.shape[1]} numbers",
                expected=f"at least {NUM_BITS}",
                remedy="Set dedup.pca_radius and decontaminate.pca_radius to null, or give a larger pool",
            )
        columns = np.concatenate([fitted.directions, fitted.offsets[:, None]], axis=1)
        storage.write_vectors(attempt.out / FIT, columns)
        return {"num_sampled": len(drawn), "num_directions": num_directions}

    return work


def _load_hashes(_: NoSettings) -> Work[HashTask]:
    def work(attempt: Attempt[HashTask]) -> Facts:
        part = attempt.task.part
        vectors = np.asarray(read_array(part.copy_vectors))
        has = vectors.any(axis=1) & ~is_poor([part])
        hashes = pca_hash(vectors, read_fit(attempt.task.fit))
        table = pa.table({"pca_hash": pa.array(hashes, mask=~has)})
        storage.write_table(attempt.out / HASHES, table)
        return {"num_rows": part.num_rows, "num_hashed": int(has.sum())}

    return work


def read_fit(fit: FileRef) -> PcaHash:
    """What was fitted."""
    columns = np.asarray(read_array(fit))
    return PcaHash(columns[:, :-1], columns[:, -1])
