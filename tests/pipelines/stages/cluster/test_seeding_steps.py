"""k-means++ in steps: the seeds of one task, whatever the cut and the interruption, and nothing is left."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation import storage
from curation.cluster.config import ClusterConfig
from curation.cluster.schedule import seeding_rows
from curation.cluster.seeding import centroids_of, seed_centroids
from pipelines.engine.step import FileRef
from pipelines.rows.parts import read_array
from pipelines.stages.cluster import seeding
from pipelines.stages.cluster.seeding import SeedingSteps
from pipelines.stages.cluster.training_set import KMeansSettings, Training
from tests.fake_executor import FakeExecutor, Interrupted
from tests.pipelines.stages.cluster.drawn_parts import inner_of, train_on, unit_vectors

SEED = 3
STEPS = ("seeding_samples", "seeding_draws", "seeding_distances")


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeding, "MANY_ROWS", 0)
    monkeypatch.setattr(seeding, "GROUP_ROWS", 45)


def draw(run_dir: Path, executor: FakeExecutor, training: Training, num_clusters: int = 12) -> Any:
    settings = KMeansSettings(ClusterConfig(), SEED, num_clusters)
    return SeedingSteps(inner_of(run_dir, executor), training, settings, threads=1).run()


def seeds_of(files: tuple[FileRef, ...], num_clusters: int) -> np.ndarray:
    return centroids_of([np.asarray(read_array(file)) for file in files], num_clusters)


def in_one_task(vectors: np.ndarray, num_clusters: int) -> np.ndarray:
    rows = np.flatnonzero(np.arange(len(vectors)) % 3)
    sample = vectors[rows[seeding_rows(len(rows), num_clusters, seed=SEED)]]
    return seed_centroids(sample, num_clusters, seed=SEED)


def lying(run_dir: Path, *names: str) -> list[Path]:
    """The folders of inner steps' items, wherever they lie."""
    return [path for name in names for path in sorted(run_dir.glob(f"steps/**/{name}/{'?' * 32}"))]


@pytest.mark.parametrize("num_clusters", [1, 2, 7, 150])
def test_the_seeds_of_one_task(tmp_path: Path, num_clusters: int) -> None:
    vectors = unit_vectors(300)
    drawn = draw(tmp_path / "run", FakeExecutor(), train_on(tmp_path / "in", vectors), num_clusters)
    np.testing.assert_array_equal(seeds_of(drawn, num_clusters), in_one_task(vectors, num_clusters))


def test_fewer_vectors_than_clusters(tmp_path: Path) -> None:
    vectors = np.tile(unit_vectors(5), (40, 1))
    executor, training = FakeExecutor(), train_on(tmp_path / "in", vectors)
    found = seeds_of(draw(tmp_path / "run", executor, training, 9), 9)
    assert len(np.unique(found, axis=0)) == 5
    np.testing.assert_array_equal(found, in_one_task(vectors, 9))
    executor.done.clear()
    draw(tmp_path / "run", executor, training, 9)
    assert executor.done == [], "also that no more is to be drawn is known"


@pytest.mark.parametrize("num_events", [1, 2, 5])
def test_interrupted_anywhere_and_resumed(
    tmp_path: Path, num_events: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = train_on(tmp_path / "in", unit_vectors(300))
    undisturbed = FakeExecutor()
    expected = seeds_of(draw(tmp_path / "whole", undisturbed, training), 12)
    num_draws = undisturbed.done.count("seeding_draws")
    assert num_draws > 4, "so that distances are brought up to date, and others forgotten"
    assert len(lying(tmp_path / "whole", "seeding_distances")) == undisturbed.done.count("seeding_samples")

    remove = storage.remove_tree
    current = FakeExecutor()

    def remove_tree(path: str) -> None:
        current.event()
        remove(path)

    monkeypatch.setattr(storage, "remove_tree", remove_tree)
    done: list[str] = []
    found = None
    for _ in range(500):
        current = FakeExecutor(stop_at=num_events)
        try:
            found = seeds_of(draw(tmp_path / "run", current, training), 12)
        except Interrupted:
            done += current.done
            continue
        done += current.done
        break
    assert sorted(done) == sorted(undisturbed.done), "nothing is done twice"
    np.testing.assert_array_equal(found, expected)
    left = [[path.name for path in lying(tmp_path / run, *STEPS)] for run in ("run", "whole")]
    assert left[0] == left[1]


@pytest.mark.parametrize("lost", ["seeding_distances", "seeding_draws", "seeding_samples"])
@pytest.mark.parametrize("group_rows", [45, 30])
def test_what_is_lost_is_made_anew(
    tmp_path: Path, lost: str, group_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders that are removed as damaged, in the middle; and groups that another version cuts otherwise."""
    vectors = unit_vectors(300)
    training = train_on(tmp_path / "in", vectors)
    with pytest.raises(Interrupted):
        draw(tmp_path / "run", FakeExecutor(stop_at=20), training)
    folders = lying(tmp_path / "run", lost)
    assert len(folders) >= 3
    for folder in folders[::2]:
        shutil.rmtree(folder)
    monkeypatch.setattr(seeding, "GROUP_ROWS", group_rows)
    found = seeds_of(draw(tmp_path / "run", FakeExecutor(), training), 12)
    np.testing.assert_array_equal(found, in_one_task(vectors, 12))


def test_a_finished_seeding_is_found(tmp_path: Path) -> None:
    training = train_on(tmp_path / "in", unit_vectors(300))
    executor = FakeExecutor()
    first = draw(tmp_path / "run", executor, training)
    executor.done.clear()
    assert draw(tmp_path / "run", executor, training) == first
    assert executor.done == []


def test_two_rounds_of_distances_lie_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = train_on(tmp_path / "in", unit_vectors(300))
    most: list[int] = []

    def event(_self: FakeExecutor) -> None:
        most.append(len(lying(tmp_path / "run", "seeding_distances")))

    monkeypatch.setattr(FakeExecutor, "event", event)
    draw(tmp_path / "run", FakeExecutor(), training)
    num_groups = len(lying(tmp_path / "run", "seeding_samples"))
    assert num_groups > 3
    assert max(most) == 2 * num_groups
