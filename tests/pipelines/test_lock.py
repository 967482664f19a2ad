"""One run at a time on a run directory, and no stale locks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from curation.errors import LockedError
from pipelines.lock import lock, owner

HOLD = (
    "import sys; from pipelines.lock import lock\nwith lock(sys.argv[1]): print('got', flush=True); input()"
)


def test_the_second_is_refused_and_told_who_owns_it(tmp_path: Path) -> None:
    run_dir = str(tmp_path / "run")
    assert owner(run_dir) is None
    with lock(run_dir):
        with pytest.raises(LockedError, match=f"process {os.getpid()} on "), lock(run_dir):
            pass
        assert f"process {os.getpid()}" in str(owner(run_dir))
    assert owner(run_dir) is None
    with lock(run_dir):
        pass


def test_an_error_inside_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), lock(str(tmp_path)):
        raise ValueError("inside")
    with lock(str(tmp_path)):
        pass


def test_a_killed_owner_leaves_no_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"got\n"
        with pytest.raises(LockedError, match=f"process {process.pid} on "), lock(str(tmp_path)):
            pass
        process.kill()
    assert owner(str(tmp_path)) is None
    with lock(str(tmp_path)):
        assert f"process {os.getpid()}" in str(owner(str(tmp_path)))
