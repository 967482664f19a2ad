"""Clustering and retrieval in steps: the same bytes as in one task, whatever the cut and the interruption."""

import glob
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.engine.local import LocalExecutor
from pipelines.engine.runner import Death
from pipelines.engine.step import RECEIPT, Item, Receipt, Step
from pipelines.stages.cluster import cluster, seeding
from pipelines.stages.retrieve import retrieve
from tests.fake_executor import Interrupted

Configure = Callable[..., Any]
IN_STEPS = "cluster.group_rows=16"  # the web has about 230 images in parts of 40: a group is one part
TWO_CLUSTERS = "cluster.num_clusters=2"  # or groups would want 16 rows for each of more clusters


SEEDING = ("seeding_samples", "seeding_draws", "seeding_distances")


@pytest.fixture
def seeded_in_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seeds of two clusters, of 32 rows, are drawn in two rounds over four groups."""
    monkeypatch.setattr(seeding, "MANY_ROWS", 0)
    monkeypatch.setattr(seeding, "GROUP_ROWS", 9)


def outputs(run_dir: Path, *names: str) -> dict[str, str]:
    """SHA-256 of all files of steps, but receipts (which tell the time)."""
    return {
        f"{name}/{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for name in names
        for path in sorted((run_dir / "steps" / name).glob("*/*"))
        if path.suffix != ".json"
    }


def inner_folders(run_dir: Path) -> list[str]:
    """What steps of steps have left."""
    left = list((run_dir / "steps").glob("*/*/inner"))
    return [path.name for path in left]


def lying(run_dir: Path, name: str, file: str = "") -> list[str]:
    """The folders of an inner step's items, or a file in each, wherever they lie."""
    # pathlib minds a folder that is removed meanwhile.
    return glob.glob(f"{run_dir}/steps/**/{name}/{'?' * 32}/{file}", recursive=True)  # noqa: PTH207


def described(finished: Path, run_dir: Path) -> Path:
    """A run directory in which all that comes before clustering is done."""
    for step in finished.glob("steps/*"):
        if step.name.startswith(("ingest", "describe", "judge", "dedup", "decontaminate")):
            shutil.copytree(step, run_dir / "steps" / step.name)
    return run_dir


@pytest.fixture(scope="module")
def at_once(
    configure: Configure,
    run_quietly: Callable[..., Any],
    finished: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """What a run gives that clusters and retrieves in one task each."""
    run_dir = described(finished, tmp_path_factory.mktemp("at_once") / "run")
    run_quietly(configure(run_dir, TWO_CLUSTERS), until="retrieve")
    found = outputs(run_dir, "cluster", "retrieve")
    assert len(found) == 5, "four files of clusters, and the hits of the curated pool"
    return found


@pytest.mark.parametrize("group_rows", [16, 45])
def test_steps_give_the_bytes_of_one_task(
    *,
    group_rows: int,
    at_once: dict[str, str],
    finished: Path,
    configure: Configure,
    run_quietly: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retrieve, "QUERY_ROWS", 7)
    monkeypatch.setattr(retrieve, "TARGET_ROWS", 50)
    done: list[str] = []
    monkeypatch.setattr(LocalExecutor, "run", counting(LocalExecutor.run, done))
    described(finished, tmp_path / "run")
    config = configure(tmp_path / "run", TWO_CLUSTERS, f"cluster.group_rows={group_rows}")
    run_quietly(config, until="retrieve")
    assert done.count("kmeans_sums") > 2 * done.count("kmeans_states") - 4
    assert "cluster_labels" in done
    assert "retrieve_blocks" in done
    assert outputs(tmp_path / "run", "cluster", "retrieve") == at_once
    assert inner_folders(tmp_path / "run") == []
    done.clear()
    run_quietly(config, until="retrieve")
    assert done == []


@pytest.mark.usefixtures("seeded_in_rounds")
def test_seeds_drawn_in_rounds_are_those_of_one_task(
    *,
    at_once: dict[str, str],
    finished: Path,
    configure: Configure,
    run_quietly: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    monkeypatch.setattr(LocalExecutor, "run", counting(LocalExecutor.run, done))
    config = configure(described(finished, tmp_path / "run"), TWO_CLUSTERS, IN_STEPS)
    run_quietly(config, until="cluster")
    assert [done.count(name) for name in SEEDING] == [4, 2, 4]
    assert outputs(tmp_path / "run", "cluster") == of_clusters(at_once)
    assert inner_folders(tmp_path / "run") == []


def of_clusters(found: dict[str, str]) -> dict[str, str]:
    return {name: sha256 for name, sha256 in found.items() if name.startswith("cluster/")}


def counting(run: Callable[..., Any], done: list[str], *, stop_at: int | None = None) -> Callable[..., Any]:
    """An executor's `run` that notes every item's step, and breaks off before item `stop_at`."""

    def counted(
        self: LocalExecutor, step: Step, items: Sequence[Item], run_dir: str
    ) -> Iterator[tuple[int, Receipt | Death]]:
        for position, item in enumerate(items):
            if len(done) == stop_at:
                raise Interrupted
            for _, outcome in run(self, step, [item], run_dir):
                done.append(step.name)
                yield position, outcome

    return counted


@pytest.mark.usefixtures("seeded_in_rounds")
def test_interrupted_anywhere_and_resumed(
    *,
    at_once: dict[str, str],
    finished: Path,
    configure: Configure,
    run_quietly: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = configure(described(finished, tmp_path / "run"), TWO_CLUSTERS, IN_STEPS)
    run = LocalExecutor.run
    undisturbed: list[str] = []
    monkeypatch.setattr(LocalExecutor, "run", counting(run, undisturbed))
    other = configure(described(finished, tmp_path / "other"), TWO_CLUSTERS, IN_STEPS)
    run_quietly(other, until="cluster")

    num_done = 0
    for _ in range(200):
        done: list[str] = []
        monkeypatch.setattr(LocalExecutor, "run", counting(run, done, stop_at=3))
        try:
            run_quietly(config, until="cluster")
        except Interrupted:
            num_done += len(done)
            assert len(done) == 3
        else:
            break
    assert num_done + len(done) == len(undisturbed), "nothing is done twice"
    assert outputs(tmp_path / "run", "cluster") == of_clusters(at_once)
    assert inner_folders(tmp_path / "run") == []


def test_nothing_of_another_version_is_taken(
    *,
    finished: Path,
    configure: Configure,
    run_quietly: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = configure(described(finished, tmp_path / "run"), TWO_CLUSTERS, IN_STEPS)
    run, undisturbed, done = LocalExecutor.run, [], []
    monkeypatch.setattr(LocalExecutor, "run", counting(run, undisturbed))
    run_quietly(configure(described(finished, tmp_path / "other"), TWO_CLUSTERS, IN_STEPS), until="cluster")
    # One sum, one state or one label before the end: all the others are there.
    monkeypatch.setattr(LocalExecutor, "run", counting(run, [], stop_at=len(undisturbed) - 2))
    with pytest.raises(Interrupted):
        run_quietly(config, until="cluster")

    def newer(name: str, version: int, *others: Any, **more: Any) -> Step:
        return Step(name, version + (name == "cluster"), *others, **more)

    monkeypatch.setattr(cluster, "Step", newer)
    monkeypatch.setattr(LocalExecutor, "run", counting(run, done))
    run_quietly(config, until="cluster")
    assert done == undisturbed


def test_killed_in_the_middle_of_an_iteration(
    *,
    at_once: dict[str, str],
    finished: Path,
    configure: Configure,
    config_file: Callable[..., Path],
    run_quietly: Callable[..., Any],
    tmp_path: Path,
) -> None:
    run_dir = described(finished, tmp_path / "run")
    config = config_file(tmp_path / "config.yaml", run_dir, TWO_CLUSTERS, IN_STEPS)
    command = [sys.executable, "-m", "pipelines.cli", "run", str(config), "--executor", "local"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        # Some sums of the second iteration are there: its state is not.
        while time.monotonic() < deadline and not (
            len(lying(run_dir, "kmeans_states", RECEIPT)) == 2 and lying(run_dir, "kmeans_sums", RECEIPT)
        ):
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not list(run_dir.glob(f"steps/cluster/*/{RECEIPT}"))
    run_quietly(configure(run_dir, TWO_CLUSTERS, IN_STEPS), until="retrieve")
    assert outputs(run_dir, "cluster", "retrieve") == at_once
    assert inner_folders(run_dir) == []


def test_what_a_death_left_behind_its_state_is_removed(
    *,
    finished: Path,
    configure: Configure,
    run_quietly: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No more than two states and the sums of one iteration lie on the disk at any time."""
    most = {"kmeans_states": 0, "kmeans_sums": 0}
    run = LocalExecutor.run

    def watched(self: LocalExecutor, step: Step, items: Sequence[Item], run_dir: str) -> Iterator[Any]:
        for outcome in run(self, step, items, run_dir):
            for name in tuple(most):
                most[name] = max(most[name], len(lying(Path(run_dir), name)))
            yield outcome

    monkeypatch.setattr(LocalExecutor, "run", watched)
    run_dir = described(finished, tmp_path / "run")
    run_quietly(configure(run_dir, TWO_CLUSTERS, IN_STEPS), until="cluster")
    assert most["kmeans_states"] == 3, "the one just made, the one it was made from, and the one before"
    assert 2 <= most["kmeans_sums"] <= 6
    centroids = list((tmp_path / "run" / "steps" / "cluster").glob("*/centroids.npy"))
    assert np.load(centroids[0]).shape[0] == 2


@pytest.mark.ray
@pytest.mark.usefixtures("seeded_in_rounds")
def test_ray_gives_the_same_bytes(
    *,
    at_once: dict[str, str],
    finished: Path,
    configure: Configure,
    run_quietly: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retrieve, "TARGET_ROWS", 50)
    run_dir = described(finished, tmp_path / "run")
    run_quietly(
        configure(run_dir, TWO_CLUSTERS, IN_STEPS, "executor.kind=ray", "executor.num_cpus=2"),
        until="retrieve",
    )
    assert outputs(run_dir, "cluster", "retrieve") == at_once
    assert inner_folders(run_dir) == []
