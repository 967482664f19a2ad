"""Processes of a run on Ray are killed: a worker's death is survived, a node's ends in words."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.acceptance.lvd_process import LvdProcess, start_lvd
from tests.chaos.bench import Workbench, last_words, unsaid
from tests.chaos.trial import Trial
from tests.faults.processes import (
    children,
    is_gcs,
    is_ray_agent,
    is_ray_worker,
    is_raylet,
    kill_marked,
    left_behind,
    marked,
)

TIMEOUT_S = 300.0
WORDS_S = 60.0  # from the death of a head or a node to the end of the driver
GONE_S = 150.0  # Ray's dashboard agent first tries to tell its dead head node


def ray_processes(bench: Workbench) -> Iterator[Trial]:
    """Each kind of process, while images are described and while edges are found."""
    for step in ("describe", "dedup_edges"):
        for victim, kill in VICTIMS.items():
            yield _trial(bench, step, victim, kill)


def _driver(lvd: LvdProcess) -> None:
    os.kill(lvd.process.pid, signal.SIGKILL)


def _asker(lvd: LvdProcess) -> None:
    """What `lvd` has left its work to: the process in which Ray's core is."""
    (asker,) = children(lvd.process.pid)
    os.kill(asker, signal.SIGKILL)


def _of_node(lvd: LvdProcess, which: Callable[[str], bool]) -> None:
    (node,) = (pid for pid, words in marked(lvd.mark).items() if is_raylet(words))
    os.kill(min(pid for pid, words in children(node).items() if which(words)), signal.SIGKILL)


def _worker(lvd: LvdProcess) -> None:
    _of_node(lvd, is_ray_worker)


def _agent(lvd: LvdProcess) -> None:
    _of_node(lvd, is_ray_agent)


def _node(lvd: LvdProcess) -> None:
    assert kill_marked(lvd.mark, is_raylet)


def _node_stopped(lvd: LvdProcess) -> None:
    """As `ray stop` does."""
    assert kill_marked(lvd.mark, is_raylet, number=signal.SIGTERM)


def _head(lvd: LvdProcess) -> None:
    assert kill_marked(lvd.mark, is_gcs)


VICTIMS: dict[str, Callable[[LvdProcess], None]] = {
    "the driver": _driver, "the driver's child": _asker, "a worker": _worker, "an agent": _agent,
    "the raylet": _node, "the GCS": _head, "the raylet (SIGTERM)": _node_stopped,
}  # fmt: skip


def _trial(bench: Workbench, step: str, victim: str, kill: Callable[[LvdProcess], None]) -> Trial:
    folder = bench.fresh("ray")
    run_dir, log = folder / "run", folder / "log"
    lvd = start_lvd([*bench.command(run_dir), "--executor=ray"], log=log)
    _wait_for_receipt(lvd, run_dir, step)
    kill(lvd)
    killed = time.monotonic()
    code = lvd.wait(TIMEOUT_S)
    took_s = time.monotonic() - killed
    left = left_behind(lvd.mark, timeout_s=GONE_S)
    said = unsaid(log) or (f"left behind: {list(left.values())}" if left else "")
    if victim == "a worker":
        said = said or ("" if code == 0 else f"ended with {code}: {last_words(log)}")
    elif victim != "the driver":
        if code != 1 or "lvd: " not in lvd.text():
            said = said or f"ended with {code}: {last_words(log)}"
        elif took_s > WORDS_S:
            said = said or f"words came after {took_s:.0f} s"
    wrong = bench.resumed(run_dir, log=log)
    return Trial("Ray's processes", f"kill {victim} in {step}", not said, not wrong, said or wrong)


def _wait_for_receipt(lvd: LvdProcess, run_dir: Path, step: str) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not list((run_dir / "steps" / step).glob("*/receipt.json")):
        assert lvd.process.poll() is None, lvd.text()
        assert time.monotonic() < end, lvd.text()
        time.sleep(0.005)
