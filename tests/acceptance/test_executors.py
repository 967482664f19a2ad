"""The same bytes come out whoever does the work, and when a node is lost in the middle of it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lvd_process import LvdProcess, run_lvd, start_lvd
from outcome import Outcome

from pipelines.ray_environment import prepare_ray_environment

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


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster whose head node carries one worker of `describe`."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    prepare_ray_environment()
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_lost_node_changes_nothing(
    cluster: Any, web_config: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    node = cluster.add_node(num_cpus=2)
    run_dir = tmp_path / "run"
    command = ["run", str(web_config), f"--set=run_dir={run_dir}", "--address", cluster.address]
    lvd = start_lvd(command, log=tmp_path / "log")
    num_parts = wait_until_busy(lvd, run_dir, node)
    cluster.remove_node(node, allow_graceful=False)
    num_done = len(list((run_dir / "steps/describe").glob("*/receipt.json")))
    assert num_done < num_parts, "the node was lost too late to matter"
    assert lvd.wait(600) == 0, lvd.text()
    print(f"lost a node when {num_done} of {num_parts} parts were described")
    assert Outcome(run_dir).digests() == undisturbed
    run_lvd(["verify", str(run_dir)], log=tmp_path / "log")


def wait_until_busy(lvd: LvdProcess, run_dir: Path, node: Any, *, timeout_s: float = 300) -> int:
    """Wait until parts are being described and the node has one in its hands; returns the number of parts."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        assert lvd.process.poll() is None, lvd.text()
        if len(list((run_dir / "steps/describe").glob("*/receipt.json"))) >= 3 and works(node):
            return len(list((run_dir / "steps/ingest").glob("*/*.parquet")))
        time.sleep(0.02)
    raise AssertionError(f"the node got nothing to do:\n{lvd.text()}")


def works(node: Any) -> bool:
    """Whether a worker of the node has a part in its hands: Ray writes what a worker does into its title."""
    raylet = node.all_processes["raylet"][0].process.pid
    for child in Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split():
        title = Path(f"/proc/{child}/cmdline").read_bytes()
        if title.startswith(b"ray::") and b"IDLE" not in title and b"MapWorker" in title:
            return True
    return False
