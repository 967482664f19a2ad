"""k-means in steps: the unit of work is a group of parts in one iteration, and so is what a death costs.

State t holds the centroids c_t, and how good c_0 … c_{t-1} were; state 0 is the seeds. From c_t every group
makes its sums, and from these, added in the order of groups, state t+1 is made. States are found again by
what they were made from and their number, not by the sums: so these go as soon as their state is published,
and so does the state before the last. Killed in between, a run finds the state and removes what it left.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from curation import storage
from curation.cluster.config import ClusterConfig
from curation.cluster.gpu import sum_on_gpu
from curation.cluster.kmeans import (
    Evaluation,
    evaluate,
    is_finished,
    seeding_rows,
    update_centroids,
)
from curation.cluster.seeding import centroids_of, seed_centroids
from curation.cluster.sums import PartSums, add_sums, sum_arrays
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, FileRef, Item, Receipt, Step, Work
from pipelines.rows.groups import group_digest, make_groups
from pipelines.rows.parts import gather_vectors, read_array, vector_blocks
from pipelines.stages.cluster.seeding import SeedingSteps
from pipelines.stages.cluster.training_set import Training, settings_of


@dataclass(frozen=True)
class Fitted:
    """The result: centroids, and the inertia before the first update and after each."""

    centroids: FileRef
    inertia: list[float]


class KMeansSteps:
    """The steps of one clustering in one run directory."""

    def __init__(
        self, runner: Runner, config: ClusterConfig, training: Training, *, seed: int, threads: int
    ) -> None:
        self._runner = runner
        self._config = config
        self._training = training
        settings, k = settings_of(config, seed), training.num_clusters
        self._seeds = Step(
            "kmeans_states", 3, settings, partial(_load_seeds, k, seed), "task", "cluster", threads
        )
        self._seeding = SeedingSteps(runner, config, training, seed=seed, threads=threads)
        self._update = Step("kmeans_states", 3, settings, _load_update, "task", "cluster", threads)
        load_sums, num_gpus = partial(_load_sums, config.device), int(config.device == "cuda")
        self._sums = Step(
            "kmeans_sums", 1, settings, load_sums, "task", "cluster", threads, num_gpus=num_gpus
        )
        rows = config.rows_of_group(k)
        self._groups = make_groups(training.parts, training.part_rows, rows=rows)

    def run(self) -> Fitted:
        """Iterate from the newest state that is there until the centroids are good enough."""
        number = self._newest()
        if number < 0:
            drawn = self._seeding.run() if self._seeding.are_worth_it else ()
            item = self._state(0, {"parts": self._training.parts, "drawn": drawn})
            self._runner.run_inside(self._seeds, [item])
            number = 0
        self._seeding.forget()
        iterations, num_groups = self._config.iterations, len(self._groups)
        total, done = (iterations + 1) * num_groups, number * num_groups
        with self._runner.progress.step("kmeans", total=total, done=done) as advance:
            while not is_finished(
                self._history(number), iterations=iterations, tolerance=self._config.tolerance
            ):
                self._forget_before(number)
                self._iterate(number, advance)
                number += 1
        inertia = [one.inertia for one in self._history(number)]
        return Fitted(self._receipt(number - 1).file(self._runner.run_dir, "centroids.npy"), inertia)

    def forget(self) -> None:
        """Remove every state and all sums: what they led to is published."""
        self._seeding.forget()
        numbers = range(self._config.iterations + 2)
        self._runner.forget(self._sums, [item for number in numbers for item in self._sums_of(number)])
        self._runner.forget(self._update, [self._state(number) for number in numbers])

    def _state(self, number: int, payload: dict[str, Any] | None = None) -> Item:
        shared = {"rows": self._training.rows}
        return Item((self._training.digest, f"state {number}"), {**shared, **(payload or {})})

    def _sums_of(self, number: int, centroids: FileRef | None = None) -> list[Item]:
        return [
            Item(
                (self._training.digest, f"state {number}", group_digest(group)),
                {"parts": group, "rows": self._training.rows, "centroids": centroids},
            )
            for group in self._groups
        ]

    def _newest(self) -> int:
        states = [self._state(number) for number in range(self._config.iterations + 2)]
        newest = self._runner.last_done(self._update, states)
        # The result is that of the state before the last: one that was set aside as damaged is made again.
        return newest if newest < 1 or self._runner.find(self._update, states[newest - 1]) else -1

    def _receipt(self, number: int) -> Receipt:
        receipt = self._runner.find(self._update, self._state(number))
        assert receipt is not None, "a state is gone that a later one builds on"
        return receipt

    def _history(self, number: int) -> list[Evaluation]:
        return [Evaluation(**one) for one in self._receipt(number).facts["history"]]

    def _iterate(self, number: int, advance: Callable[[Receipt], None]) -> None:
        before = self._receipt(number)
        run_dir = self._runner.run_dir
        centroids = before.file(run_dir, "centroids.npy")
        sums = self._runner.run_inside(self._sums, self._sums_of(number, centroids), advance=advance)
        payload = {
            "centroids": centroids,
            "history": before.facts["history"],
            "sums": [(s.file(run_dir, "sums.npy"), s.file(run_dir, "counts.npy")) for s in sums],
        }
        self._runner.run_inside(self._update, [self._state(number + 1, payload)])

    def _forget_before(self, number: int) -> None:
        """Remove what state `number` has superseded. The state before it stays: it may be the result."""
        if number >= 1:
            self._runner.forget(self._sums, self._sums_of(number - 1))
        if number >= 2:
            self._runner.forget(self._update, [self._state(number - 2)])


def _load_seeds(num_clusters: int, seed: int) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        if drawn := attempt.payload["drawn"]:  # by steps of its own
            _write(attempt, centroids=centroids_of([read_array(file) for file in drawn], num_clusters))
            return {"history": []}
        rows = read_array(attempt.payload["rows"])
        sample = np.asarray(rows[seeding_rows(len(rows), num_clusters, seed=seed)])
        vectors = gather_vectors(attempt.payload["parts"], "embeddings", sample)
        _write(attempt, centroids=seed_centroids(vectors, num_clusters, seed=seed))
        return {"history": []}

    return work


def _load_sums(device: Literal["cpu", "cuda"]) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        rows = read_array(attempt.payload["rows"])
        blocks = vector_blocks(attempt.payload["parts"], "embeddings", rows)
        arrays = (vectors for _, vectors in blocks)
        total = (sum_on_gpu if device == "cuda" else sum_arrays)(arrays, _centroids(attempt))
        _write(attempt, sums=total.sums, counts=total.counts)
        return {"num_rows": int(total.counts.sum())}

    return work


def _load_update() -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        centroids = _centroids(attempt)
        total = add_sums(
            PartSums(sums=np.asarray(read_array(sums)), counts=np.asarray(read_array(counts)))
            for sums, counts in attempt.payload["sums"]
        )
        now = evaluate(total, centroids)
        _write(attempt, centroids=update_centroids(centroids, total.sums, counts=total.counts))
        history = [*attempt.payload["history"], {"inertia": now.inertia, "num_empty": now.num_empty}]
        return {"history": history}

    return work


def _centroids(attempt: Attempt) -> Float32[np.ndarray, "k d"]:
    return np.array(read_array(attempt.payload["centroids"]))


def _write(attempt: Attempt, **arrays: np.ndarray) -> None:
    for name, array in arrays.items():
        storage.write_vectors(attempt.out / f"{name}.npy", array)
