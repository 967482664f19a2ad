"""What k-means is trained on: the parts that hold such rows, cut into groups by these rows."""

from pathlib import Path

from curation.cluster.config import ClusterConfig
from pipelines.stages.cluster.training_set import KMeansSettings, Training
from tests.pipelines.stages.cluster.drawn_parts import train_on, unit_vectors


def test_parts_without_a_row_are_left_out_and_groups_count_rows(tmp_path: Path) -> None:
    every = train_on(tmp_path / "in", unit_vectors(250))
    training = Training.on(every.parts, [33, 0, 33, 1, 33], every.rows)
    assert [part.number for part in training.parts] == [0, 2, 3, 4]
    assert training.part_rows == (33, 33, 1, 33)
    settings = KMeansSettings(ClusterConfig(group_rows=34), 0, 2)
    assert [[p.number for p in group] for group in training.groups(settings)] == [[0, 2], [3, 4]]
