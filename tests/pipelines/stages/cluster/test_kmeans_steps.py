"""k-means in steps gives the centroids of the library's k-means in memory, and is resumed from its states."""

from pathlib import Path

import numpy as np
import pytest

from curation.cluster.config import ClusterConfig
from curation.cluster.kmeans import kmeans
from pipelines.rows.parts import read_array
from pipelines.stages.cluster.kmeans import Fitted, fit_in_steps
from pipelines.stages.cluster.training_set import KMeansSettings, Training
from tests.fake_executor import FakeExecutor, Interrupted
from tests.pipelines.stages.cluster.drawn_parts import inner_of, train_on, unit_vectors

SEED, K = 5, 6
CONFIG = ClusterConfig(iterations=7, group_rows=40)


def fit(run_dir: Path, executor: FakeExecutor, training: Training) -> Fitted:
    return fit_in_steps(inner_of(run_dir, executor), training, KMeansSettings(CONFIG, SEED, K), threads=1)


@pytest.mark.parametrize("num_events", [None, 1, 2, 7])
def test_the_result_of_memory_and_nothing_twice(tmp_path: Path, num_events: int | None) -> None:
    vectors = unit_vectors(300)
    training = train_on(tmp_path / "in", vectors)
    expected = kmeans(vectors[np.arange(300) % 3 > 0], num_clusters=K, seed=SEED, iterations=7)
    done: list[str] = []
    fitted = None
    while fitted is None:
        executor = FakeExecutor(stop_at=num_events)
        try:
            fitted = fit(tmp_path / "run", executor, training)
        except Interrupted:
            assert executor.done
        done += executor.done
    np.testing.assert_array_equal(read_array(fitted.centroids), expected.centroids)
    assert fitted.inertia == expected.inertia.tolist()
    num_groups, num_evaluated = len(training.groups(KMeansSettings(CONFIG, SEED, K))), len(fitted.inertia)
    assert num_groups > 1
    assert done.count("kmeans_sums") == num_groups * num_evaluated
    assert done.count("kmeans_states") == 1 + num_evaluated
    left = {path.parent.name for path in (tmp_path / "run").glob("steps/**/receipt.json")}
    assert len(left) == 2, "the state whose centroids these are, and the one that says so"
