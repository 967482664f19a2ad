"""k-means++ in steps: the unit of work is a group of the sample in one round of seeds.

The vectors of every group are gathered once. A draw reads the distances of all groups, eight bytes a vector,
looks its candidates up in the groups, one after the other, and puts out the vectors of its seeds; then every
group brings its distances up to date. So the draws are states, and distances what the next one is made from.

The work imports what it computes with where it is loaded: it brings torch, for which no dry run waits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Float16, Int64

from curation import storage
from curation.cluster.config import num_seeding_rows
from curation.cluster.schedule import num_rounds, seeding_rows
from pipelines.engine.inner import FOUND_BY_PLACE, InnerSteps, States
from pipelines.engine.step import Attempt, Facts, FileRef, Item, Receipt, Step, Work
from pipelines.rows.parts import Part, PlacesOf, gather_vectors, read_array
from pipelines.stages.cluster.training_set import KMeansSettings, Training

VECTORS = "vectors.npy"  # of a group of the sample
SEEDS = "seeds.npy"  # of a round
DISTANCE = "distance.npy"  # of a group, from the nearest of all seeds up to a round

# A smaller sample, of k up to 8,192, is seeded in one task: 22 s on two cores at 384 numbers.
MANY_ROWS = 1 << 17
GROUP_ROWS = 1 << 15


@dataclass(frozen=True)
class SampleTask:
    """The vectors of a group of the sample, to be gathered."""

    parts: Annotated[tuple[Part, ...], PlacesOf("embeddings")]
    rows: FileRef
    cut: range  # of the sample


@dataclass(frozen=True)
class SeedCandidates:
    """What a round draws from."""

    samples: tuple[FileRef, ...]  # vectors, by groups
    sizes: tuple[int, ...]
    distances: tuple[FileRef, ...]  # none of the first round
    num_drawn: int  # by the rounds before


@dataclass(frozen=True)
class DrawTask:
    """The seeds of a round."""

    made_from: Annotated[SeedCandidates | None, FOUND_BY_PLACE] = None


@dataclass(frozen=True)
class Nearer:
    """Seeds that a vector may be nearer to than it was to any before."""

    vectors: FileRef
    before: FileRef | None  # distances from the seeds of the rounds before
    seeds: tuple[FileRef, ...]  # of the last round, or of all where `before` is None


@dataclass(frozen=True)
class DistancesTask:
    """The distances of a group before a round."""

    cut: range
    made_from: Annotated[Nearer | None, FOUND_BY_PLACE] = None


class SeedingSteps:
    """The steps of one k-means++.

    Args:
        inner: of the outcome that the seeds are for.
        training: whose rows are sampled.
        settings: of the k-means.
        threads: of a worker.
    """

    def __init__(
        self, inner: InnerSteps, training: Training, settings: KMeansSettings, *, threads: int
    ) -> None:
        self._inner, self._training, self._num_seeds = inner, training, settings.num_clusters
        num_sampled = num_seeding_rows(sum(training.part_rows), settings.num_clusters)
        firsts = range(0, num_sampled, GROUP_ROWS) if num_sampled > MANY_ROWS else range(0)
        self._cuts = [range(first, min(first + GROUP_ROWS, num_sampled)) for first in firsts]
        self._gather = Step("seeding_samples", 1, settings, load_samples, "cluster", threads)
        self._draw = Step("seeding_draws", 1, settings, load_draw, "cluster", threads)
        num_gpus = settings.num_gpus
        self._lower = Step(
            "seeding_distances", 1, settings, load_distances, "cluster", threads, num_gpus=num_gpus
        )

    @property
    def are_worth_it(self) -> bool:
        """Whether the sample is too large for one task."""
        return bool(self._cuts)

    def run(self) -> tuple[FileRef, ...]:
        """The seeds of every round, drawn from the newest round on that is there."""
        to_gather = [Item(SampleTask(self._training.parts, self._training.rows, cut)) for cut in self._cuts]
        samples = self._inner.files(self._inner.run_shown(self._gather, to_gather), VECTORS)
        # A draw reads the distances that the one before it was made from, too.
        draws = States(self._inner, self._draw, Item(DrawTask()), keep=None, reads_inner=True)
        # After the last draw no distances are asked for.
        rounds = num_rounds(self._num_seeds), len(draws.kept)
        total, done = (max(num - 1, 0) * len(samples) for num in rounds)
        progress = self._inner.runner.progress
        with progress.step("kmeans_seeding", total=max(total, done), done=done) as advance:

            def draw(inside: InnerSteps) -> Item[DrawTask]:
                distances = self._distances(draws, samples, inside=inside, advance=advance)
                sizes = tuple(len(cut) for cut in self._cuts)
                return Item(DrawTask(SeedCandidates(samples, sizes, distances, _num_drawn(draws.kept))))

            while not self._is_last(draws.kept):
                draws.add(draw)
        return self._inner.files([one for one in draws.kept if one.facts["num_drawn"]], SEEDS)

    def _distances(
        self,
        draws: States,
        samples: tuple[FileRef, ...],
        *,
        inside: InnerSteps,
        advance: Callable[[Receipt], None],
    ) -> tuple[FileRef, ...]:
        """Every group's distances, brought up to date by the newest draw."""
        if not draws.kept:
            return ()
        seeds = self._inner.files(draws.kept, SEEDS)
        newest = draws.inner(draws.number)
        items = []
        for cut, vectors in zip(self._cuts, samples, strict=True):
            found = newest.find(self._lower, Item(DistancesTask(cut)))
            before = newest.files([found], DISTANCE)[0] if found else None
            # Where distances are gone, by all seeds: the smallest is the same.
            nearer = Nearer(vectors, before, seeds if before is None else seeds[-1:])
            items.append(Item(DistancesTask(cut, nearer)))
        return inside.files(inside.run(self._lower, items, advance=advance), DISTANCE)

    def _is_last(self, draws: Sequence[Receipt]) -> bool:
        return bool(draws) and (_num_drawn(draws) == self._num_seeds or not draws[-1].facts["num_drawn"])


def _num_drawn(draws: Sequence[Receipt]) -> int:
    return sum(draw.facts["num_drawn"] for draw in draws)


def load_samples(settings: KMeansSettings) -> Work[SampleTask]:
    """The vectors of a group of the sample."""

    def work(attempt: Attempt[SampleTask]) -> Facts:
        task, rows = attempt.task, read_array(attempt.task.rows)
        sample = seeding_rows(len(rows), settings.num_clusters, seed=settings.seed)
        mine = np.asarray(rows[sample[task.cut.start : task.cut.stop]])
        vectors = gather_vectors(task.parts, "embeddings", mine)
        storage.write_vectors(attempt.out / VECTORS, vectors)
        return {"num_rows": len(vectors)}

    return work


def load_draw(settings: KMeansSettings) -> Work[DrawTask]:
    """The seeds of a round."""
    from curation.cluster.seeding import draw_seeds

    def work(attempt: Attempt[DrawTask]) -> Facts:
        made_from = attempt.task.made_from
        assert made_from is not None, "seeds are to be drawn, and it is not said from what"
        starts = np.cumsum([0, *made_from.sizes])
        distances = [read_array(file) for file in made_from.distances]
        drawn = draw_seeds(
            np.concatenate(distances) if distances else np.ones(starts[-1]),
            lambda places: _vectors_at(places, made_from.samples, starts),
            num_chosen=made_from.num_drawn,
            num_clusters=settings.num_clusters,
            seed=settings.seed,
        )
        storage.write_vectors(attempt.out / SEEDS, drawn)
        return {"num_drawn": len(drawn)}

    return work


def _vectors_at(
    places: Int64[np.ndarray, " b"], samples: Sequence[FileRef], starts: Int64[np.ndarray, " g"]
) -> Float16[np.ndarray, "b d"]:
    """The vectors at some places of the sample; each file that holds one is opened once."""
    group = np.searchsorted(starts, places, side="right") - 1
    numbers = np.unique(group) if len(group) else np.zeros(1, np.int64)
    found: dict[int, np.ndarray] = {}
    for number in numbers.tolist():
        mine = places[group == number] - starts[number]
        found[number] = np.asarray(read_array(samples[number])[mine])
    vectors = np.empty((len(places), found[int(numbers[0])].shape[1]), np.float16)
    for number, own in found.items():
        vectors[group == number] = own
    return vectors


def load_distances(settings: KMeansSettings) -> Work[DistancesTask]:
    """The distances of a group from the nearest of all seeds so far."""
    from curation.cluster.seeding import nearest_distances

    def work(attempt: Attempt[DistancesTask]) -> Facts:
        made_from = attempt.task.made_from
        assert made_from is not None, "distances are asked for, and it is not said from what"
        vectors = read_array(made_from.vectors)
        seeds = np.concatenate([read_array(file) for file in made_from.seeds])
        distance = nearest_distances(vectors, seeds, device=settings.config.device)
        if made_from.before is not None:
            distance = np.minimum(distance, read_array(made_from.before))
        storage.write_vectors(attempt.out / DISTANCE, distance)
        return {"num_rows": len(vectors)}

    return work
