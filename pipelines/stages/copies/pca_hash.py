"""pca_hash: directions are fitted on a sample of copy descriptors, and every part is hashed along them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from curation import storage
from curation.cluster.seeding import sample_rows
from curation.dedup.pca_hash import NUM_BITS, PcaHash, fit_pca_hash, pca_hash
from curation.errors import ConfigError
from pipelines.config.run_config import RunConfig
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, FileRef, Item, Step, Work
from pipelines.rows.parts import Part, gather_vectors, is_null, read_array, roles
from pipelines.stages.copies.join import copy_file
from pipelines.stages.copies.poor_pictures import is_poor


def hash_descriptors(runner: Runner, config: RunConfig, parts: Sequence[Part]) -> tuple[Part, ...]:
    """Hash every copy descriptor, where a rule asks for PCA hashes.

    The fit depends on the whole: a pool that grows is hashed anew, which costs one product a part.
    """
    if config.dedup.pca_radius is None and config.decontaminate.pca_radius is None:
        return tuple(parts)
    num, seed = config.dedup.pca_sample_rows, config.seed
    settings = {"sample_rows": num, "seed": seed}
    fit_step = Step("pca_fit", 3, settings, partial(_load_fit, num, seed), "task", "dedup")
    inputs = tuple(part.digest("described", copy_file(part)) for part in parts)
    fit = runner.run_one(fit_step, Item(inputs, {"parts": tuple(parts)}))
    fitted = fit.file(runner.run_dir, "fit.npy")
    step = Step("pca_hash", 2, {}, _load_hashes, "map", "dedup")
    items = [
        Item(
            (fitted.sha256, part.content("described", copy_file(part))),
            {"part": part, "fit": fitted},
            part.num_rows,
        )
        for part in parts
    ]
    receipts = runner.run(step, items)
    return tuple(
        replace(part, pca_hashes=receipt.file(runner.run_dir, "hashes.parquet"))
        for part, receipt in zip(parts, receipts, strict=True)
    )


def _load_fit(num: int, seed: int) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        parts: tuple[Part, ...] = attempt.payload["parts"]
        is_sound = is_null(parts, "described", "reason") & ~is_poor(parts)
        candidates = np.flatnonzero(is_sound & ~roles(parts, "holdout"))
        drawn = candidates[sample_rows(len(candidates), num, seed=seed)]
        sample = gather_vectors(parts, copy_file(parts[0]), drawn)
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
        storage.write_vectors(attempt.out / "fit.npy", columns)
        return {"num_sampled": len(drawn), "num_directions": num_directions}

    return work


def _load_hashes() -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        part: Part = attempt.payload["part"]
        vectors = np.asarray(read_array(part.descriptors or part.embeddings))
        has = vectors.any(axis=1) & ~is_poor([part])
        hashes = pca_hash(vectors, read_fit(attempt.payload["fit"]))
        table = pa.table({"pca_hash": pa.array(hashes, mask=~has)})
        storage.write_table(attempt.out / "hashes.parquet", table)
        return {"num_rows": part.num_rows, "num_hashed": int(has.sum())}

    return work


def read_fit(fit: FileRef) -> PcaHash:
    """What was fitted."""
    columns = np.asarray(read_array(fit))
    return PcaHash(columns[:, :-1], columns[:, -1])
