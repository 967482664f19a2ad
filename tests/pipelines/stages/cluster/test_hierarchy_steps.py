"""What the hierarchy is made of: the flat clusters alone, or steps upon them."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.config.run_config import RunConfig, validate
from pipelines.engine.progress import Progress
from pipelines.engine.runner import Runner, StopHereError
from pipelines.engine.step import FileRef
from pipelines.stages.cluster.cluster import Clusters
from pipelines.stages.cluster.hierarchy import Hierarchy, build_hierarchy

ALIVE, CLUSTER, SCORE, CENTROIDS = (
    FileRef(name, 1, name) for name in ("alive", "cluster", "score", "centroids")
)


def configure(run_dir: Path, **others: Any) -> RunConfig:
    pools = {"web": {"role": "uncurated", "sources": [{"kind": "folder", "path": "web"}]}}
    rule = {"balanced": {"num_images": 9}}
    return validate({"run_dir": str(run_dir), "pools": pools, "select": rule, **others}, where="a test")


def clusters(num_clusters: int) -> Clusters:
    return Clusters(ALIVE, CLUSTER, SCORE, CENTROIDS, num_clusters, "digest")


def dry(run_dir: Path) -> Runner:
    return Runner(str(run_dir), None, Progress(quiet=True))


def test_without_levels_the_clusters_are_the_leaves(tmp_path: Path) -> None:
    runner = dry(tmp_path)
    found = build_hierarchy(runner, configure(tmp_path), (), clusters(60))
    assert found == Hierarchy(CLUSTER, SCORE, ())
    assert runner.states == []


def test_where_nothing_survives_there_is_no_level(tmp_path: Path) -> None:
    config = configure(tmp_path, hierarchy={"levels": [{"num_clusters": 16}]})
    assert build_hierarchy(dry(tmp_path), config, (), clusters(0)).parents == ()


def test_a_level_is_a_step_and_leaves_are_split_before(tmp_path: Path) -> None:
    for splits, step in ((1, "cluster_level"), (3, "cluster_members")):
        config = configure(tmp_path, hierarchy={"splits": splits, "levels": [{"num_clusters": 16}]})
        runner = dry(tmp_path)
        with pytest.raises(StopHereError):
            build_hierarchy(runner, config, (), clusters(60))
        assert [(state.name, state.num_done) for state in runner.states] == [(step, 0)]


def test_its_digest_is_of_all_that_it_says() -> None:
    all_parents = ((), (CENTROIDS,), (ALIVE,), (ALIVE, CENTROIDS))
    digests = {Hierarchy(CLUSTER, SCORE, parents).digest for parents in all_parents}
    assert len(digests) == 4
