"""A cluster is watched from outside, and what is left of one of our own is ended."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation.errors import ExecutorError
from pipelines.engine import ray_watch
from pipelines.engine.ray_watch import RayCluster, Watch, end_marked, marking


@contextlib.contextmanager
def listening(folder: Path) -> Iterator[tuple[RayCluster, socket.socket, socket.socket]]:
    """What looks like a head and a node."""
    with socket.socket() as head, socket.socket(socket.AF_UNIX) as node:
        head.bind(("127.0.0.1", 0))
        head.listen()
        node.bind(str(folder / "node"))
        node.listen()
        yield RayCluster(head.getsockname(), str(folder / "node")), head, node


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_watch, "LOOK_EVERY_S", 0.02)


def test_a_cluster_that_is_there(tmp_path: Path) -> None:
    with listening(tmp_path) as (cluster, _, _):
        watch = Watch(cluster, print)
        assert list(watch.drawn(iter(range(3)))) == [0, 1, 2]
        assert watch.look() is None
        watch.close()


def test_a_node_that_has_ended_is_told_at_once(tmp_path: Path) -> None:
    with listening(tmp_path) as (cluster, _, node):
        watch = Watch(cluster, print)
        node.close()
        with pytest.raises(ExecutorError, match=r"its node on this machine has ended \(raylet\)"):
            next(watch.drawn(forever()))
        assert watch.lost


def test_a_head_of_others_may_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(tmp_path) as (cluster, head, _):
        watch = Watch(cluster, print)
        assert watch.look() is None
        head.close()
        assert watch.look() is None
        monkeypatch.setattr(ray_watch, "HEAD_GONE_S", 0.1)
        with pytest.raises(ExecutorError, match="head does not answer"):
            next(watch.drawn(forever()))


def test_a_head_of_our_own_does_not(tmp_path: Path) -> None:
    with listening(tmp_path) as (cluster, head, _):
        watch = Watch(RayCluster(cluster.head, cluster.node, "mark"), print)
        head.close()
        with pytest.raises(ExecutorError, match="head does not answer"):
            next(watch.drawn(forever()))


def test_an_error_that_comes_with_the_end_is_told_as_the_end(tmp_path: Path) -> None:
    def fails() -> Iterator[int]:
        raise RuntimeError("broken pipe")
        yield 0

    with listening(tmp_path) as (cluster, _, node):
        watch = Watch(cluster, print)
        with pytest.raises(RuntimeError, match="broken pipe"):
            next(watch.drawn(fails()))
        node.close()
        with pytest.raises(ExecutorError, match="raylet"):
            next(watch.drawn(fails()))


def test_one_who_works_on_something_else_is_ended_with_a_word(tmp_path: Path) -> None:
    program = f"""
import time
from pipelines.engine import ray_watch
ray_watch.TAKEN_S = 0.1
ray_watch.Watch(ray_watch.RayCluster(None, {str(tmp_path / "none")!r}), lambda text: print(text, flush=True))
time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("lvd: The Ray cluster is lost, or failed. Got: its node on this machine")
    assert done.stdout.count("\n") == 1
    assert not done.stderr


def test_what_is_left_of_our_own_is_ended() -> None:
    with marking() as mark:
        ours = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    others = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert ray_watch.MARK not in os.environ
    try:
        reaper = threading.Thread(target=ours.wait)
        reaper.start()
        started = time.monotonic()
        end_marked(None)
        assert ours.poll() is None
        end_marked(mark)
        assert time.monotonic() - started < ray_watch.END_S
        reaper.join()
        assert ours.returncode == -signal.SIGKILL
        assert others.poll() is None
    finally:
        for process in (ours, others):
            process.kill()
            process.wait()


def forever() -> Iterator[int]:
    time.sleep(20)
    yield 0
