"""k-means in steps: the unit of work is a group of parts in one iteration, and so is what a death costs.

State t holds the centroids c_t, and how good c_0 … c_{t-1} were; state 0 is the seeds. From c_t every group
makes its sums, and from these, added in the order of groups, state t + 1 is made.

The work imports what it computes with where it is loaded: it brings torch, for which no dry run waits.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Float32

from curation import storage
from curation.cluster.schedule import Evaluation, is_finished, seeding_rows
from pipelines.engine.inner import FOUND_BY_PLACE, InnerSteps, States
from pipelines.engine.step import Attempt, Facts, FileRef, Item, Receipt, Step, Work
from pipelines.rows.parts import Part, PlacesOf, gather_vectors, read_array, vector_blocks
from pipelines.stages.cluster.seeding import SeedingSteps
from pipelines.stages.cluster.training_set import KMeansSettings, Training

CENTROIDS = "centroids.npy"  # of a state


class SumsFile(StrEnum):
    """What a group puts out in one iteration."""

    SUMS = "sums.npy"
    COUNTS = "counts.npy"


@dataclass(frozen=True)
class Fitted:
    """The result: centroids, and the inertia before the first update and after each."""

    centroids: FileRef
    inertia: list[float]


@dataclass(frozen=True)
class Sampled:
    """State 0 is made from a sample of these rows, in one task."""

    parts: tuple[Part, ...]
    rows: FileRef


@dataclass(frozen=True)
class Drawn:
    """State 0 is made from the seeds of every round, drawn by steps of their own."""

    seeds: tuple[FileRef, ...]


@dataclass(frozen=True)
class GroupSums:
    """The sums of a group."""

    sums: FileRef
    counts: FileRef


@dataclass(frozen=True)
class Summed:
    """A later state is made from the one before it, and the sums of all groups."""

    centroids: FileRef
    history: tuple[Evaluation, ...]
    groups: tuple[GroupSums, ...]


@dataclass(frozen=True)
class StateTask:
    """A state."""

    made_from: Annotated[Sampled | Drawn | Summed | None, FOUND_BY_PLACE] = None


@dataclass(frozen=True)
class SumsTask:
    """The rows of a group to sum, each with the nearest of a state's centroids."""

    parts: Annotated[tuple[Part, ...], PlacesOf("embeddings")]
    rows: FileRef
    centroids: FileRef


def fit_in_steps(inner: InnerSteps, training: Training, settings: KMeansSettings, *, threads: int) -> Fitted:
    """Iterate from the newest state that is there until the centroids are good enough."""
    step = Step("kmeans_states", 3, settings, load_state, "cluster", threads)
    states = States(inner, step, Item(StateTask()), keep=2)  # the result is the state before the last
    if states.number < 0:
        states.add(lambda inside: Item(StateTask(_seeds_from(inside, training, settings, threads=threads))))
    groups, iterations = training.groups(settings), settings.config.iterations
    sums = Step("kmeans_sums", 1, settings, load_sums, "cluster", threads, num_gpus=settings.num_gpus)

    def is_last() -> bool:
        history = _history(states.kept[-1])
        return is_finished(history, iterations=iterations, tolerance=settings.config.tolerance)

    def iterate(inside: InnerSteps, advance: Callable[[Receipt], None]) -> Item[StateTask]:
        [centroids] = inner.files(states.kept[-1:], CENTROIDS)
        items = [Item(SumsTask(group, training.rows, centroids)) for group in groups]
        found = inside.run(sums, items, advance=advance)
        files = zip(*(inside.files(found, name) for name in SumsFile), strict=True)
        history = tuple(_history(states.kept[-1]))
        return Item(StateTask(Summed(centroids, history, tuple(GroupSums(*two) for two in files))))

    total, done = (iterations + 1) * len(groups), states.number * len(groups)
    with inner.runner.progress.step("kmeans", total=total, done=done) as advance:
        while not is_last():
            states.add(lambda inside: iterate(inside, advance))
    before, last = states.kept
    [centroids] = inner.files([before], CENTROIDS)
    return Fitted(centroids, [one.inertia for one in _history(last)])


def _seeds_from(
    inside: InnerSteps, training: Training, settings: KMeansSettings, *, threads: int
) -> Sampled | Drawn:
    seeding = SeedingSteps(inside, training, settings, threads=threads)
    return Drawn(seeding.run()) if seeding.are_worth_it else Sampled(training.parts, training.rows)


def _history(state: Receipt) -> list[Evaluation]:
    return [Evaluation(**one) for one in state.facts["history"]]


def load_state(settings: KMeansSettings) -> Work[StateTask]:
    """The seeds, or the centroids that follow from the sums of all groups."""

    def work(attempt: Attempt[StateTask]) -> Facts:
        made_from = attempt.task.made_from
        assert made_from is not None, "a state is to be made, and it is not said from what"
        if isinstance(made_from, Summed):
            return _update(attempt.out, made_from)
        _write(attempt.out, {CENTROIDS: _seeds(made_from, settings)})
        return {"history": []}

    return work


def _seeds(made_from: Sampled | Drawn, settings: KMeansSettings) -> Float32[np.ndarray, "k d"]:
    from curation.cluster.seeding import centroids_of, seed_centroids

    k, seed = settings.num_clusters, settings.seed
    if isinstance(made_from, Drawn):
        return centroids_of([read_array(file) for file in made_from.seeds], k)
    rows = read_array(made_from.rows)
    sample = np.asarray(rows[seeding_rows(len(rows), k, seed=seed)])
    return seed_centroids(gather_vectors(made_from.parts, "embeddings", sample), k, seed=seed)


def _update(out: Path, made_from: Summed) -> Facts:
    from curation.cluster.kmeans import evaluate, update_centroids
    from curation.cluster.sums import PartSums, add_sums

    centroids = np.array(read_array(made_from.centroids))
    total = add_sums(
        PartSums(sums=np.asarray(read_array(group.sums)), counts=np.asarray(read_array(group.counts)))
        for group in made_from.groups
    )
    now = evaluate(total, centroids)
    _write(out, {CENTROIDS: update_centroids(centroids, total.sums, counts=total.counts)})
    return {"history": [asdict(one) for one in (*made_from.history, now)]}


def load_sums(settings: KMeansSettings) -> Work[SumsTask]:
    """The sums of a group under the centroids of a state."""
    from curation.cluster.gpu import sum_on_gpu
    from curation.cluster.sums import sum_arrays

    add_up = sum_on_gpu if settings.config.device == "cuda" else sum_arrays

    def work(attempt: Attempt[SumsTask]) -> Facts:
        task = attempt.task
        blocks = vector_blocks(task.parts, "embeddings", read_array(task.rows))
        total = add_up((vectors for _, vectors in blocks), np.array(read_array(task.centroids)))
        _write(attempt.out, {SumsFile.SUMS: total.sums, SumsFile.COUNTS: total.counts})
        return {"num_rows": int(total.counts.sum())}

    return work


def _write(out: Path, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        storage.write_vectors(out / name, array)
