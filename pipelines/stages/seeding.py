"""k-means++ in steps: the unit of work is a group of the sample in one round of seeds.

The vectors of every group are gathered once. A draw reads the distances of all groups, eight bytes a vector,
and puts out the vectors of its seeds; then every group brings its distances up to date. Draws stay until the
end, small as they are, and the distances of a round until there is a draw by later ones: so a run that was
killed finds its place by the draws.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np

from curation import storage
from curation.cluster.kmeans import seeding_rows
from curation.cluster.seeding import draw_seeds, nearest_distances, num_rounds
from pipelines.parts import gather_vectors, read_array
from pipelines.runner import Runner
from pipelines.stages.training import Training
from pipelines.step import Attempt, FileRef, Item, Receipt, Step, Work

# A smaller sample is seeded in one task: its rounds take less time than the steps that they would be.
MANY_ROWS = 1 << 18
GROUP_ROWS = 1 << 16

NumSeeds = tuple[int, int]  # drawn so far, and wanted


class SeedingSteps:
    """The steps of one k-means++ in one run directory.

    Args:
        runner: of the run.
        training: whose rows are sampled.
        settings: what of the config changes the result.
        seed: of the sample and of the draws.
        threads: of a worker.
        device: where distances are computed.
    """

    def __init__(
        self,
        runner: Runner,
        training: Training,
        *,
        settings: dict[str, Any],
        seed: int,
        threads: int,
        device: Literal["cpu", "cuda"],
    ) -> None:
        self._runner = runner
        self._training = training
        self._num_seeds = training.num_clusters
        num_sampled = len(seeding_rows(sum(training.part_rows), self._num_seeds, seed=seed))
        cuts = [(first, min(first + GROUP_ROWS, num_sampled)) for first in range(0, num_sampled, GROUP_ROWS)]
        self._cuts = cuts if num_sampled > MANY_ROWS else []

        def step(name: str, load: Callable[[], Work], *, num_gpus: int = 0) -> Step:
            return Step(name, 1, settings, load, "task", "cluster", threads, num_gpus=num_gpus)

        self._gather = step("seeding_samples", partial(_load_gather, self._num_seeds, seed))
        self._draw = step("seeding_draws", partial(_load_draw, seed))
        lower = partial(_load_lower, device)
        self._lower = step("seeding_distances", lower, num_gpus=int(device == "cuda"))

    @property
    def are_worth_it(self) -> bool:
        """Whether the sample is too large for one task."""
        return bool(self._cuts)

    def run(self) -> tuple[FileRef, ...]:
        """The vectors of the seeds of every round, drawn from the newest round on that is there."""
        samples = self._files(self._runner.run_inside(self._gather, self._samples()), "vectors.npy")
        draws = self._draws_done()
        total, done = num_rounds(self._num_seeds) * len(samples), len(draws) * len(samples)
        with self._runner.progress.step("kmeans_seeding", total=max(total, done), done=done) as advance:
            if not draws:
                draws = [self._draw_next([], samples, ())]
            while not self._is_last(draws):
                newest = len(draws) - 1
                [seeds] = self._files(draws[-1:], "seeds.npy")
                before = self._distances(newest - 1) if newest else [None] * len(samples)
                items = [
                    self._lower_item(newest, cut, {"vectors": vectors, "before": distance, "seeds": seeds})
                    for cut, vectors, distance in zip(self._cuts, samples, before, strict=True)
                ]
                lowered = self._runner.run_inside(self._lower, items, advance=advance)
                draws.append(self._draw_next(draws, samples, self._files(lowered, "distance.npy")))
                self._forget_distances(newest - 1)
        return self._files([draw for draw in draws if draw.facts["num_drawn"]], "seeds.npy")

    def forget(self) -> None:
        """Remove all that the steps have put out: what it led to is published."""
        num_draws = len(self._draws_done())
        for number in range(num_draws):
            self._forget_distances(number)
        self._runner.forget(self._gather, self._samples())
        # The last first: they are found from the first on, also when a run has died here.
        for number in reversed(range(num_draws)):
            self._runner.forget(self._draw, [self._draw_item(number)])

    def _samples(self) -> list[Item]:
        payload = {"parts": self._training.parts, "rows": self._training.rows}
        return [
            Item((self._training.digest, f"sample {first} to {last}"), {**payload, "cut": (first, last)})
            for first, last in self._cuts
        ]

    def _draw_item(self, number: int, payload: dict[str, Any] | None = None) -> Item:
        return Item((self._training.digest, f"round {number}"), payload or {})

    def _lower_item(self, number: int, cut: tuple[int, int], payload: dict[str, Any] | None = None) -> Item:
        first, last = cut
        inputs = (self._training.digest, f"round {number}", f"sample {first} to {last}")
        return Item(inputs, payload or {})

    def _draws_done(self) -> list[Receipt]:
        draws: list[Receipt] = []
        while receipt := self._runner.find(self._draw, self._draw_item(len(draws))):
            draws.append(receipt)
        return draws

    def _draw_next(
        self, draws: list[Receipt], samples: tuple[FileRef, ...], distances: tuple[FileRef, ...]
    ) -> Receipt:
        payload = {"samples": samples, "distances": distances, "num_seeds": self._count(draws)}
        [receipt] = self._runner.run_inside(self._draw, [self._draw_item(len(draws), payload)])
        return receipt

    def _count(self, draws: list[Receipt]) -> NumSeeds:
        return sum(draw.facts["num_drawn"] for draw in draws), self._num_seeds

    def _is_last(self, draws: list[Receipt]) -> bool:
        num_drawn, num_wanted = self._count(draws)
        return num_drawn == num_wanted or not draws[-1].facts["num_drawn"]

    def _distances(self, number: int) -> list[FileRef]:
        found = [self._runner.find(self._lower, self._lower_item(number, cut)) for cut in self._cuts]
        assert None not in found, "distances are gone that later ones build on"
        return list(self._files([receipt for receipt in found if receipt], "distance.npy"))

    def _forget_distances(self, number: int) -> None:
        if number >= 0:
            self._runner.forget(self._lower, [self._lower_item(number, cut) for cut in self._cuts])

    def _files(self, receipts: list[Receipt], name: str) -> tuple[FileRef, ...]:
        return tuple(receipt.file(self._runner.run_dir, name) for receipt in receipts)


def _load_gather(num_clusters: int, seed: int) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        rows = read_array(attempt.payload["rows"])
        sample = seeding_rows(len(rows), num_clusters, seed=seed)[slice(*attempt.payload["cut"])]
        vectors = gather_vectors(attempt.payload["parts"], "embeddings", np.asarray(rows[sample]))
        storage.write_vectors(attempt.out / "vectors.npy", vectors)
        return {"num_rows": len(vectors)}

    return work


def _load_draw(seed: int) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        samples = [read_array(file) for file in attempt.payload["samples"]]
        starts = np.cumsum([0, *(len(sample) for sample in samples)])
        distances = [read_array(file) for file in attempt.payload["distances"]]
        num_chosen, num_clusters = attempt.payload["num_seeds"]

        def vectors_at(places: np.ndarray) -> np.ndarray:
            found = np.empty((len(places), samples[0].shape[1]), np.float16)
            group = np.searchsorted(starts, places, side="right") - 1
            for number in np.unique(group).tolist():
                mine = group == number
                found[mine] = samples[number][places[mine] - starts[number]]
            return found

        distance = np.concatenate(distances) if distances else np.ones(starts[-1])
        drawn = draw_seeds(distance, vectors_at, num_chosen=num_chosen, num_clusters=num_clusters, seed=seed)
        storage.write_vectors(attempt.out / "seeds.npy", vectors_at(drawn))
        return {"num_drawn": len(drawn)}

    return work


def _load_lower(device: Literal["cpu", "cuda"]) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        vectors, seeds = (read_array(attempt.payload[name]) for name in ("vectors", "seeds"))
        distance = nearest_distances(vectors, seeds, device=device)
        if attempt.payload["before"] is not None:
            distance = np.minimum(distance, read_array(attempt.payload["before"]))
        storage.write_vectors(attempt.out / "distance.npy", distance)
        return {"num_rows": len(vectors)}

    return work
