"""`lvd` as a user runs it: a process of its own, watched from outside."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.processes import MARK, left_behind, new_mark

REPO = Path(__file__).resolve().parents[2]
LVD = (sys.executable, "-m", "pipelines.cli")
# Ray's dashboard agent first tries to tell its dead head node, and gives up after a minute.
GONE_S = 150


@dataclass
class LvdProcess:
    """A running `lvd`, its log, and the mark by which its children are known."""

    process: subprocess.Popen[bytes]
    log: Path
    mark: str

    def wait(self, timeout_s: float) -> int:
        """Its exit code; a process that takes longer is killed."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def wait_for_peak(self) -> tuple[int, int]:
        """Its exit code, and the largest resident set of it and of children that it waited for, bytes."""
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return self.process.returncode, usage.ru_maxrss * 1024

    def kill(self) -> None:
        """SIGKILL to this process alone: its children must notice by themselves."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def orphans(self, timeout_s: float = GONE_S) -> list[str]:
        """What it started and still ran when it had been given time to end; it is killed."""
        return [f"{pid}: {words}" for pid, words in left_behind(self.mark, timeout_s=timeout_s).items()]

    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")


def start_lvd(
    arguments: Sequence[str],
    *,
    log: Path,
    program: Sequence[str] = LVD,
    environment: Mapping[str, str] | None = None,
) -> LvdProcess:
    """Start `lvd` with two threads, in a session of its own, printing into `log`."""
    mark = new_mark()
    settings = {"OMP_NUM_THREADS": "2", **mark, **(environment or {})}
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [*program, *arguments],
            cwd=REPO,
            env=os.environ | settings,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    return LvdProcess(process, log, mark[MARK])


def run_lvd(arguments: Sequence[str], *, log: Path, timeout_s: float = 1200) -> None:
    """Run `lvd` to its end, which must be a good one and leave no process behind."""
    lvd = start_lvd(arguments, log=log)
    assert lvd.wait(timeout_s) == 0, lvd.text()
    assert not lvd.orphans()
