"""k-means++ in steps: the unit of work is a group of the sample in one round of seeds.

The vectors of every group are gathered once. A draw reads the distances of all groups, eight bytes a vector,
looks its candidates up in the groups, one after the other, and puts out the vectors of its seeds; then every
group brings its distances up to date. Draws stay until the end, small as they are, and the distances of a
round until there is a draw by later ones: so a run that was killed finds its place by the draws.

What does the work is imported where it is loaded: it brings torch, for which no dry run waits.
"""

from curation.cluster.config import ClusterConfig, num_seeding_rows
from curation.cluster.seeding_rounds import num_rounds
from pipelines.engine.runner import Runner
from pipelines.engine.step import FileRef, Item, Receipt, Step, Work
from pipelines.stages.cluster.seeding_tasks import (
    DISTANCE,
    SEEDS,
    VECTORS,
    DistancesTask,
    DrawTask,
    Nearer,
    SampleTask,
    SeedCandidates,
)
from pipelines.stages.cluster.training_set import KMeansSettings, Training

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
        firsts = range(0, num_sampled, GROUP_ROWS) if num_sampled > MANY_ROWS else range(0)
        self._cuts = [range(first, min(first + GROUP_ROWS, num_sampled)) for first in firsts]
        settings = KMeansSettings(config, seed, k)
        self._gather = Step("seeding_samples", 1, settings, _load_gather, "task", "cluster", threads)
        self._draw = Step("seeding_draws", 1, settings, _load_draw, "task", "cluster", threads)
        num_gpus = int(config.device == "cuda")
        self._lower = Step(
            "seeding_distances", 1, settings, _load_lower, "task", "cluster", threads, num_gpus=num_gpus
        )

    @property
    def are_worth_it(self) -> bool:
        """Whether the sample is too large for one task."""
        return bool(self._cuts)

    def run(self) -> tuple[FileRef, ...]:
        """The seeds of every round, drawn from the newest round on that is there."""
        with self._runner.progress.step(self._gather.name, total=len(self._cuts), done=0) as advance:
            gathered = self._runner.run_inside(self._gather, self._samples(), advance=advance)
        samples = self._files(gathered, VECTORS)
        draws = self._draws_done()
        # After the last draw no distances are asked for.
        total, done = (max(num - 1, 0) * len(samples) for num in (num_rounds(self._num_seeds), len(draws)))
        with self._runner.progress.step("kmeans_seeding", total=max(total, done), done=done) as advance:
            if not draws:
                draws = [self._draw_next(draws, samples=samples, distances=())]
            distances = self._distances(len(draws) - 2)
            while not self._is_last(draws):
                newest = len(draws) - 1
                items = self._lower_items(draws, samples=samples, distances=distances)
                lowered = self._runner.run_inside(self._lower, items, advance=advance)
                distances = self._files(lowered, DISTANCE)
                draws.append(self._draw_next(draws, samples=samples, distances=distances))
                self._forget_distances(newest - 1)
        return self._files([draw for draw in draws if draw.facts["num_drawn"]], SEEDS)

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

    def _samples(self) -> list[Item[SampleTask]]:
        training = self._training
        return [Item(SampleTask(training.digest, training.parts, training.rows, cut)) for cut in self._cuts]

    def _draw_item(self, number: int, made_from: SeedCandidates | None = None) -> Item[DrawTask]:
        return Item(DrawTask(self._training.digest, number, made_from))

    def _lower_item(self, number: int, cut: range, made_from: Nearer | None = None) -> Item[DistancesTask]:
        return Item(DistancesTask(self._training.digest, number, cut, made_from))

    def _lower_items(
        self,
        draws: list[Receipt],
        *,
        samples: tuple[FileRef, ...],
        distances: tuple[FileRef | None, ...],
    ) -> list[Item[DistancesTask]]:
        """Every group's distances, brought up to date by the newest draw."""
        seeds = self._files(draws, SEEDS)
        return [
            # Where distances are gone, by all seeds: the smallest is the same.
            self._lower_item(
                len(draws) - 1, cut, Nearer(file, before, seeds if before is None else seeds[-1:])
            )
            for cut, file, before in zip(self._cuts, samples, distances, strict=True)
        ]

    def _draws_done(self) -> list[Receipt]:
        draws: list[Receipt] = []
        while receipt := self._runner.find(self._draw, self._draw_item(len(draws))):
            draws.append(receipt)
        return draws

    def _draw_next(
        self, draws: list[Receipt], *, samples: tuple[FileRef, ...], distances: tuple[FileRef, ...]
    ) -> Receipt:
        sizes = tuple(len(cut) for cut in self._cuts)
        candidates = SeedCandidates(samples, sizes, distances, _num_drawn(draws))
        [receipt] = self._runner.run_inside(self._draw, [self._draw_item(len(draws), candidates)])
        return receipt

    def _is_last(self, draws: list[Receipt]) -> bool:
        return _num_drawn(draws) == self._num_seeds or not draws[-1].facts["num_drawn"]

    def _distances(self, number: int) -> tuple[FileRef | None, ...]:
        """Of every group, as far as they are there."""
        found = [self._runner.find(self._lower, self._lower_item(number, cut)) for cut in self._cuts]
        run_dir = self._runner.run_dir
        return tuple(None if one is None else one.file(run_dir, DISTANCE) for one in found)

    def _forget_distances(self, number: int) -> None:
        if number >= 0:
            self._runner.forget(self._lower, [self._lower_item(number, cut) for cut in self._cuts])

    def _files(self, receipts: list[Receipt], name: str) -> tuple[FileRef, ...]:
        return tuple(receipt.file(self._runner.run_dir, name) for receipt in receipts)


def _num_drawn(draws: list[Receipt]) -> int:
    return sum(draw.facts["num_drawn"] for draw in draws)


def _load_gather(settings: KMeansSettings) -> Work[SampleTask]:
    from pipelines.stages.cluster.seed_draws import load_samples

    return load_samples(settings)


def _load_draw(settings: KMeansSettings) -> Work[DrawTask]:
    from pipelines.stages.cluster.seed_draws import load_draw

    return load_draw(settings)


def _load_lower(settings: KMeansSettings) -> Work[DistancesTask]:
    from pipelines.stages.cluster.seed_draws import load_distances

    return load_distances(settings)
