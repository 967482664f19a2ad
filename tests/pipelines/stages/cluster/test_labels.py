"""Rows get their nearest centroid, whichever group they are in; what does not survive gets none."""

from pathlib import Path

import numpy as np
import pytest

from curation.cluster.config import ClusterConfig
from pipelines.rows.groups import make_groups
from pipelines.stages.cluster.labels import LabelsTask, assign_rows, joined, label_in_steps, labels_step
from pipelines.stages.cluster.training_set import ClusterSettings
from tests.fake_executor import FakeExecutor
from tests.pipelines.stages.cluster.drawn_parts import inner_of, published, train_on, unit_vectors


@pytest.mark.parametrize("all_alive", [True, False])
def test_groups_give_what_all_rows_at_once_do(tmp_path: Path, *, all_alive: bool) -> None:
    vectors = unit_vectors(230)
    parts = train_on(tmp_path / "in", vectors).parts
    alive = np.ones(230, bool) if all_alive else np.arange(230) % 4 != 1
    centroids = vectors[:7].astype(np.float32)
    file = None if all_alive else published(tmp_path / "alive.npy", alive)
    groups = make_groups(parts, [part.num_rows for part in parts], rows=100)
    tasks = [LabelsTask(group, file, published(tmp_path / "centroids.npy", centroids)) for group in groups]
    step = labels_step("labels", ClusterSettings(ClusterConfig(), 0), threads=1)
    labels = label_in_steps(inner_of(tmp_path / "run", FakeExecutor()), step, tasks)
    assert len(labels) == 3
    cluster, score = joined(labels)
    products = vectors.astype(np.float64) @ centroids.astype(np.float64).T
    np.testing.assert_array_equal(cluster, np.where(alive, products.argmax(axis=1), -1))
    np.testing.assert_allclose(score, np.where(alive, products.max(axis=1), 0), rtol=1e-6)
    for found, expected in zip(assign_rows(parts, alive, centroids), (cluster, score), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_gpu_is_asked_for_where_the_config_says_so() -> None:
    steps = [
        labels_step("labels", ClusterSettings(ClusterConfig(device=device), 0), threads=1)
        for device in ("cpu", "cuda")
    ]
    assert [step.num_gpus for step in steps] == [0, 1]
    assert steps[0].settings.device != steps[1].settings.device
