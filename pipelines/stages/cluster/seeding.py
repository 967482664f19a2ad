"""k-means++ in steps: the unit of work is a group of the sample in one round of seeds.

The vectors of every group are gathered once. A draw reads the distances of all groups, eight bytes a vector,
looks its candidates up in the groups, one after the other, and puts out the vectors of its seeds; then every
group brings its distances up to date. Draws stay until the end, small as they are, and the distances of a
round until there is a draw by later ones: so a run that was killed finds its place by the draws.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
from jaxtyping import Float16, Int64

from curation import storage
from curation.cluster.config import ClusterConfig, num_seeding_rows
from curation.cluster.kmeans import seeding_rows
from curation.cluster.seeding import draw_seeds, nearest_distances, num_rounds
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, FileRef, Item, Receipt, Step, Work
from pipelines.rows.parts import gather_vectors, read_array
from pipelines.stages.cluster.training_set import Training, settings_of

# A smaller sample, of k up to 8,192, is seeded in one task: 22 s on two cores at 384 numbers.
MANY_ROWS = 1 << 17
GROUP_ROWS = 1 << 15


class SeedingSteps:
    """The steps of one k-means++ in one run directory.

    Args:
        runner: of the run.
        config: its settings are the steps', and its device is where distances are computed.
        training: whose rows are sampled.
        seed: of the sample and of the draws.
        threads: of a worker.
    """

    def __init__(
        self, runner: Runner, config: ClusterConfig, training: Training, *, seed: int, threads: int
    ) -> None:
        self._runner = runner
        self._training = training
        self._num_seeds = k = training.num_clusters
        num_sampled = num_seeding_rows(sum(training.part_rows), k)
        cuts = [(first, min(first + GROUP_ROWS, num_sampled)) for first in range(0, num_sampled, GROUP_ROWS)]
        self._cuts = cuts if num_sampled > MANY_ROWS else []
        settings = settings_of(config, seed)

        def make_step(name: str, load: Callable[[], Work], *, num_gpus: int = 0) -> Step:
            return Step(name, 1, settings, load, "task", "cluster", threads, num_gpus=num_gpus)

        self._gather = make_step("seeding_samples", partial(_load_gather, k, seed))
        self._draw = make_step("seeding_draws", partial(_load_draw, k, seed))
        load_lower, num_gpus = partial(_load_lower, config.device), int(config.device == "cuda")
        self._lower = make_step("seeding_distances", load_lower, num_gpus=num_gpus)

    @property
    def are_worth_it(self) -> bool:
        """Whether the sample is too large for one task."""
        return bool(self._cuts)

    def run(self) -> tuple[FileRef, ...]:
        """The seeds of every round, drawn from the newest round on that is there."""
        with self._runner.progress.step(self._gather.name, total=len(self._cuts), done=0) as advance:
            gathered = self._runner.run_inside(self._gather, self._samples(), advance=advance)
        samples = self._files(gathered, "vectors.npy")
        draws = self._draws_done()
        # After the last draw no distances are asked for.
        total, done = (max(num - 1, 0) * len(samples) for num in (num_rounds(self._num_seeds), len(draws)))
        with self._runner.progress.step("kmeans_seeding", total=max(total, done), done=done) as advance:
            if not draws:
                draws = [self._draw_next(draws, samples=samples, distances=())]
            distances = self._distances(len(draws) - 2)
            while not self._is_last(draws):
                newest = len(draws) - 1
                seeds = self._files(draws, "seeds.npy")
                items = [
                    self._lower_item(
                        newest,
                        cut,
                        payload={
                            "vectors": file,
                            "before": before,
                            # Where distances are gone, by all seeds: the smallest is the same.
                            "seeds": seeds if before is None else seeds[-1:],
                        },
                    )
                    for cut, file, before in zip(self._cuts, samples, distances, strict=True)
                ]
                lowered = self._runner.run_inside(self._lower, items, advance=advance)
                distances = self._files(lowered, "distance.npy")
                draws.append(self._draw_next(draws, samples=samples, distances=distances))
                self._forget_distances(newest - 1)
        return self._files([draw for draw in draws if draw.facts["num_drawn"]], "seeds.npy")

    def forget(self) -> None:
        """Remove all that the steps have put out: what it led to is published."""
        # One more than there are receipts of: a run that dies here has removed a receipt before its folder.
        num_draws = len(self._draws_done()) + 1
        for number in range(num_draws):
            self._forget_distances(number)
        self._runner.forget(self._gather, self._samples())
        # The last first, as they are found from the first on.
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

    def _lower_item(
        self, number: int, cut: tuple[int, int], *, payload: dict[str, Any] | None = None
    ) -> Item:
        first, last = cut
        inputs = (self._training.digest, f"round {number}", f"sample {first} to {last}")
        return Item(inputs, payload or {})

    def _draws_done(self) -> list[Receipt]:
        draws: list[Receipt] = []
        while receipt := self._runner.find(self._draw, self._draw_item(len(draws))):
            draws.append(receipt)
        return draws

    def _draw_next(
        self, draws: list[Receipt], *, samples: tuple[FileRef, ...], distances: tuple[FileRef, ...]
    ) -> Receipt:
        payload = {
            "samples": samples,
            "sizes": tuple(last - first for first, last in self._cuts),
            "distances": distances,
            "num_drawn": _num_drawn(draws),
        }
        [receipt] = self._runner.run_inside(self._draw, [self._draw_item(len(draws), payload)])
        return receipt

    def _is_last(self, draws: list[Receipt]) -> bool:
        return _num_drawn(draws) == self._num_seeds or not draws[-1].facts["num_drawn"]

    def _distances(self, number: int) -> tuple[FileRef | None, ...]:
        """Of every group, as far as they are there."""
        found = [self._runner.find(self._lower, self._lower_item(number, cut)) for cut in self._cuts]
        run_dir = self._runner.run_dir
        return tuple(None if one is None else one.file(run_dir, "distance.npy") for one in found)

    def _forget_distances(self, number: int) -> None:
        if number >= 0:
            self._runner.forget(self._lower, [self._lower_item(number, cut) for cut in self._cuts])

    def _files(self, receipts: list[Receipt], name: str) -> tuple[FileRef, ...]:
        return tuple(receipt.file(self._runner.run_dir, name) for receipt in receipts)


def _num_drawn(draws: list[Receipt]) -> int:
    return sum(draw.facts["num_drawn"] for draw in draws)


def _load_gather(num_clusters: int, seed: int) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        rows = read_array(attempt.payload["rows"])
        sample = seeding_rows(len(rows), num_clusters, seed=seed)[slice(*attempt.payload["cut"])]
        vectors = gather_vectors(attempt.payload["parts"], "embeddings", np.asarray(rows[sample]))
        storage.write_vectors(attempt.out / "vectors.npy", vectors)
        return {"num_rows": len(vectors)}

    return work


def _load_draw(num_clusters: int, seed: int) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        payload = attempt.payload
        starts = np.cumsum([0, *payload["sizes"]])
        num_chosen = payload["num_drawn"]

        def vectors_at(places: Int64[np.ndarray, " b"]) -> Float16[np.ndarray, "b d"]:
            """The vectors at some places of the sample; each file that holds one is opened once."""
            group = np.searchsorted(starts, places, side="right") - 1
            numbers = np.unique(group) if len(group) else np.zeros(1, np.int64)
            found: dict[int, np.ndarray] = {}
            for number in numbers.tolist():
                mine = places[group == number] - starts[number]
                found[number] = np.asarray(read_array(payload["samples"][number])[mine])
            vectors = np.empty((len(places), found[int(numbers[0])].shape[1]), np.float16)
            for number, own in found.items():
                vectors[group == number] = own
            return vectors

        distances = [read_array(file) for file in payload["distances"]]
        distance = np.concatenate(distances) if distances else np.ones(starts[-1])
        drawn = draw_seeds(distance, vectors_at, num_chosen=num_chosen, num_clusters=num_clusters, seed=seed)
        storage.write_vectors(attempt.out / "seeds.npy", drawn)
        return {"num_drawn": len(drawn)}

    return work


def _load_lower(device: Literal["cpu", "cuda"]) -> Work:
    def work(attempt: Attempt) -> dict[str, Any]:
        vectors = read_array(attempt.payload["vectors"])
        seeds = np.concatenate([read_array(file) for file in attempt.payload["seeds"]])
        distance = nearest_distances(vectors, seeds, device=device)
        if attempt.payload["before"] is not None:
            distance = np.minimum(distance, read_array(attempt.payload["before"]))
        storage.write_vectors(attempt.out / "distance.npy", distance)
        return {"num_rows": len(vectors)}

    return work
