"""k-means in steps: the unit of work is a group of parts in one iteration, and so is what a death costs.

State t holds the centroids c_t, and how good c_0 … c_{t-1} were; state 0 is the seeds. From c_t every group
makes its sums, and from these, added in the order of groups, state t+1 is made. States are found again by
what they were made from and their number, not by the sums: so these go as soon as their state is published,
and so does the state before the last. Killed in between, a run finds the state and removes what it left.

What does the work is imported where it is loaded: it brings torch, for which no dry run waits.
"""

from collections.abc import Callable

from curation.cluster.config import ClusterConfig
from curation.cluster.stopping import Evaluation, is_finished
from pipelines.engine.runner import Runner
from pipelines.engine.step import FileRef, Item, Receipt, Step, Work
from pipelines.rows.groups import make_groups
from pipelines.stages.cluster.kmeans_tasks import (
    CENTROIDS,
    Drawn,
    Fitted,
    GroupSums,
    Sampled,
    StateTask,
    Summed,
    SumsFile,
    SumsTask,
)
from pipelines.stages.cluster.seeding import SeedingSteps
from pipelines.stages.cluster.training_set import KMeansSettings, Training


class KMeansSteps:
    """The steps of one clustering in one run directory."""

    def __init__(
        self, runner: Runner, config: ClusterConfig, training: Training, *, seed: int, threads: int
    ) -> None:
        self._runner = runner
        self._config = config
        self._training = training
        settings = KMeansSettings(config, seed, training.num_clusters)
        self._seeding = SeedingSteps(runner, config, training, seed=seed, threads=threads)
        self._states = Step("kmeans_states", 3, settings, _load_state, "task", "cluster", threads)
        num_gpus = int(config.device == "cuda")
        self._sums = Step(
            "kmeans_sums", 1, settings, _load_sums, "task", "cluster", threads, num_gpus=num_gpus
        )
        rows = config.rows_of_group(training.num_clusters)
        self._groups = make_groups(training.parts, training.part_rows, rows=rows)

    def run(self) -> Fitted:
        """Iterate from the newest state that is there until the centroids are good enough."""
        number = self._newest()
        if number < 0:
            drawn = self._seeding.run() if self._seeding.are_worth_it else ()
            sampled = Sampled(self._training.parts, self._training.rows)
            self._runner.run_inside(self._states, [self._state(0, Drawn(drawn) if drawn else sampled)])
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
        return Fitted(self._receipt(number - 1).file(self._runner.run_dir, CENTROIDS), inertia)

    def forget(self) -> None:
        """Remove every state and all sums: what they led to is published."""
        self._seeding.forget()
        numbers = range(self._config.iterations + 2)
        self._runner.forget(self._sums, [item for number in numbers for item in self._sums_of(number)])
        self._runner.forget(self._states, [self._state(number) for number in numbers])

    def _state(self, number: int, made_from: Sampled | Drawn | Summed | None = None) -> Item[StateTask]:
        return Item(StateTask(self._training.digest, number, made_from))

    def _sums_of(self, number: int, centroids: FileRef | None = None) -> list[Item[SumsTask]]:
        clustering, rows = self._training.digest, self._training.rows
        return [Item(SumsTask(clustering, number, group, rows, centroids)) for group in self._groups]

    def _newest(self) -> int:
        states = [self._state(number) for number in range(self._config.iterations + 2)]
        newest = self._runner.last_done(self._states, states)
        # The result is that of the state before the last: one that was set aside as damaged is made again.
        return newest if newest < 1 or self._runner.find(self._states, states[newest - 1]) else -1

    def _receipt(self, number: int) -> Receipt:
        receipt = self._runner.find(self._states, self._state(number))
        assert receipt is not None, "a state is gone that a later one builds on"
        return receipt

    def _history(self, number: int) -> list[Evaluation]:
        return [Evaluation(**one) for one in self._receipt(number).facts["history"]]

    def _iterate(self, number: int, advance: Callable[[Receipt], None]) -> None:
        run_dir = self._runner.run_dir
        centroids = self._receipt(number).file(run_dir, CENTROIDS)
        found = self._runner.run_inside(self._sums, self._sums_of(number, centroids), advance=advance)
        sums = tuple(
            GroupSums(one.file(run_dir, SumsFile.SUMS), one.file(run_dir, SumsFile.COUNTS)) for one in found
        )
        summed = Summed(centroids, tuple(self._history(number)), sums)
        self._runner.run_inside(self._states, [self._state(number + 1, summed)])

    def _forget_before(self, number: int) -> None:
        """Remove what state `number` has superseded. The state before it stays: it may be the result."""
        if number >= 1:
            self._runner.forget(self._sums, self._sums_of(number - 1))
        if number >= 2:
            self._runner.forget(self._states, [self._state(number - 2)])


def _load_state(settings: KMeansSettings) -> Work[StateTask]:
    from pipelines.stages.cluster.sums_and_states import load_state

    return load_state(settings)


def _load_sums(settings: KMeansSettings) -> Work[SumsTask]:
    from pipelines.stages.cluster.sums_and_states import load_sums

    return load_sums(settings)
