"""The same bytes come out whoever does the work, and when a node is lost in the middle of it."""

import glob
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lvd_process import LvdProcess, run_lvd, start_lvd
from outcome import Outcome

from pipelines.engine.around_ray import prepare_ray_environment

pytestmark = [pytest.mark.accept, pytest.mark.ray]

TOKEN = "0123456789abcdef" * 4  # what the nodes of the test's cluster know each other by


@pytest.fixture(scope="module")
def undisturbed(web_config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the local executor makes of the web."""
    run_dir = tmp_path_factory.mktemp("local") / "run"
    command = ["run", str(web_config), f"--set=run_dir={run_dir}", "--executor", "local"]
    run_lvd(command, log=run_dir.with_name("log"))
    run_lvd(["verify", str(run_dir)], log=run_dir.with_name("log"))
    return Outcome(run_dir).digests()


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_ray_gives_the_same_bytes(
    workers: int, web_config: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    command = ["run", str(web_config), f"--set=run_dir={tmp_path / 'run'}", "--executor", "ray"]
    # A worker of `describe` has two threads, so four of them want eight (logical) cores.
    command += ["--workers", str(workers), "--set=executor.num_cpus=8"]
    run_lvd(command, log=tmp_path / "log")
    assert Outcome(tmp_path / "run").digests() == undisturbed


@dataclass(frozen=True)
class Loss:
    """When a node is lost: a step has put out some items, and the node has another in its hands."""

    step: str
    after: int
    settings: tuple[str, ...]
    title: bytes  # Ray writes what a worker does into its title


LOSSES = [
    Loss("describe", 3, (), b"MapWorker"),
    # Blocks of 200 rows make a hundred pairs, and groups of 200 rows a dozen items of each iteration.
    Loss("dedup_edges", 10, ("dedup.block_rows=200",), b"_do"),
    Loss(
        "kmeans_sums",
        3,
        ("cluster.group_rows=200", "cluster.num_clusters=10", "cluster.iterations=12"),
        b"_do",
    ),
]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster whose head node carries one worker of `describe`; the other nodes are the test's."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    prepare_ray_environment()
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.step)
def test_a_lost_node_changes_nothing(loss: Loss, cluster: Any, web_config: Path, tmp_path: Path) -> None:
    nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
    settings = [f"--set={setting}" for setting in loss.settings]
    undisturbed, run_dir = tmp_path / "undisturbed", tmp_path / "run"
    local = ["run", str(web_config), f"--set=run_dir={undisturbed}", "--executor", "local", *settings]
    run_lvd(local, log=tmp_path / "log")
    command = ["run", str(web_config), f"--set=run_dir={run_dir}", "--address", cluster.address, *settings]
    lvd = start_lvd(command, log=tmp_path / "log")
    node = wait_until_busy(lvd, run_dir, nodes, loss)
    num_done = num_receipts(run_dir, loss.step)
    cluster.remove_node(node, allow_graceful=False)
    assert lvd.wait(600) == 0, lvd.text()
    print(f"lost a node of three when {num_done} items of {loss.step} were there")
    assert Outcome(run_dir).digests() == Outcome(undisturbed).digests()
    run_lvd(["verify", str(run_dir)], log=tmp_path / "log")


def wait_until_busy(
    lvd: LvdProcess, run_dir: Path, nodes: Sequence[Any], loss: Loss, *, timeout_s: float = 900
) -> Any:
    """Wait for the moment of the loss; returns the node that is at work."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        assert lvd.process.poll() is None, lvd.text()
        if num_receipts(run_dir, loss.step) >= loss.after:
            for node in nodes:
                if works(node, loss.title):
                    return node
        time.sleep(0.005)
    lvd.kill()
    raise AssertionError(f"no node got anything to do:\n{lvd.text()}")


def num_receipts(run_dir: Path, step: str) -> int:
    """Items of a step, or of an inner one, that are there now."""
    # pathlib minds a folder that is removed meanwhile.
    return len(glob.glob(f"{run_dir}/steps/**/{step}/*/receipt.json", recursive=True))  # noqa: PTH207


def works(node: Any, title: bytes) -> bool:
    """Whether a worker of the node has an item in its hands."""
    raylet = node.all_processes["raylet"][0].process.pid
    for child in Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split():
        try:
            words = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        if words.startswith(b"ray::") and b"IDLE" not in words and title in words:
            return True
    return False
