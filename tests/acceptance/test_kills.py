"""A run that is killed again and again, at seeded moments of its work, and resumed each time."""

import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from lvd_process import LvdProcess, run_lvd, start_lvd
from outcome import Outcome

pytestmark = pytest.mark.accept

NUM_KILLS = 10


@pytest.fixture(scope="module")
def undisturbed(web_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a run that nothing happens to."""
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    run_lvd(command(web_config, run_dir, "local"), log=run_dir.with_name("log"))
    return run_dir


def command(web_config: Path, run_dir: Path, executor: str) -> list[str]:
    """The command line of a run."""
    return ["run", str(web_config), f"--set=run_dir={run_dir}", f"--executor={executor}"]


def num_receipts(run_dir: Path) -> int:
    """Finished items of a run."""
    return len(list((run_dir / "steps").glob("*/*/receipt.json")))


@pytest.mark.parametrize(
    ("executor", "num_kills"),
    [("local", NUM_KILLS), pytest.param("ray", 4, marks=pytest.mark.ray)],
)
def test_killed_and_resumed_gives_the_same_bytes(
    executor: str, num_kills: int, web_config: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    arguments = command(web_config, run_dir, executor)
    rng = np.random.default_rng(11)
    total = num_receipts(undisturbed)
    # One kill in each stretch of the work, so that every stage is hit; the last one while the dataset is put
    # together.
    moments = [int(rng.integers(a, b)) for a, b in stretches(total, num_kills - 1)] + [total]
    for moment in moments:
        lvd = start_lvd(arguments, log=tmp_path / "log")
        wait_for_receipts(lvd, run_dir, moment)
        time.sleep(float(rng.uniform(0, 0.1)) if moment < total else 0)
        assert lvd.process.poll() is None, f"it had ended before {moment} of {total}:\n{lvd.text()}"
        lvd.kill()
        killed = time.monotonic()
        assert not lvd.orphans()
        gone_s = time.monotonic() - killed
        done = f"{num_receipts(run_dir)} of {total} receipts"
        print(f"killed at {done}; the last process was gone in {gone_s:.0f} s")
    run_lvd(arguments, log=tmp_path / "log")
    finished = Outcome(run_dir)
    assert finished.digests() == Outcome(undisturbed).digests()
    assert num_receipts(run_dir) == total
    leftovers = {path.name for path in run_dir.iterdir()} - {path.name for path in undisturbed.iterdir()}
    assert not leftovers
    run_lvd(["verify", str(run_dir)], log=tmp_path / "log")


def stretches(total: int, count: int) -> Sequence[tuple[int, int]]:
    """`total` cut into `count` runs of about equal length."""
    bounds = np.linspace(0, total, count + 1).astype(int).tolist()
    return list(pairwise(bounds))


def wait_for_receipts(lvd: LvdProcess, run_dir: Path, number: int, *, timeout_s: float = 600) -> None:
    """Wait until so many items are done, and work on the next has begun."""
    end = time.monotonic() + timeout_s
    while num_receipts(run_dir) < number or not (run_dir / "run.yaml").exists():
        assert lvd.process.poll() is None, lvd.text()
        assert time.monotonic() < end, lvd.text()
        time.sleep(0.005)
