"""A process ends with the one that started it, when that is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faults.processes import MARK, left_behind, marked, new_mark

from curation import orphans

CHILD = """
import signal, sys, time
from curation import orphans

signal.signal(signal.SIGTERM, lambda *_: exit(print("saved", file=open(sys.argv[2], "w"))))
orphans.end_with_parent(by=signal.Signals[sys.argv[1]], parent=orphans.named_parent())
print("ready", flush=True)
time.sleep(60)
"""
# It starts the child in a thread that ends at once: to the kernel, that is the child's parent.
PARENT = """
import os, subprocess, sys, threading, time

environment = os.environ | ({"LVD_PARENT": str(os.getpid())} if sys.argv[1] == "named" else {})
start = lambda: subprocess.Popen([sys.executable, *sys.argv[2:]], env=environment)
threading.Thread(target=start).start()
time.sleep(60)
"""


@pytest.mark.parametrize("parent", ["named", "asked"])
@pytest.mark.parametrize("by", ["SIGKILL", "SIGTERM"])
def test_a_child_ends_with_a_parent_that_is_killed(by: str, parent: str, tmp_path: Path) -> None:
    mark, saved = new_mark(), tmp_path / "saved"
    command = [sys.executable, "-c", PARENT, parent, "-c", CHILD, by, str(saved)]
    with subprocess.Popen(command, env=os.environ | mark, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert len(marked(mark[MARK])) == 2
        process.kill()
    assert not left_behind(mark[MARK], timeout_s=30)
    assert saved.exists() == (by == "SIGTERM")


def test_a_parent_that_has_gone_before_is_noticed() -> None:
    environment = os.environ | {"LVD_PARENT": str(2**22 + 1)}  # no process has such a number
    code = subprocess.run(
        [sys.executable, "-c", CHILD, "SIGKILL", ""], env=environment, check=False
    ).returncode
    assert code == -signal.SIGKILL


def test_the_environment_names_the_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(orphans.PARENT, raising=False)
    assert orphans.named_parent() is None
    monkeypatch.setenv(orphans.PARENT, "17")
    assert orphans.named_parent() == 17
