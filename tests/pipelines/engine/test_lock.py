"""One run at a time on a run directory, and no stale locks."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from curation.errors import ConfigError, LockedError
from pipelines.engine.lock import lock, owner

HOLD = """
import sys
from pipelines.engine.lock import lock
with lock(sys.argv[1]):
    print("got", flush=True)
    input()
"""


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


def test_a_lock_that_was_removed_is_still_a_lock(tmp_path: Path) -> None:
    with lock(str(tmp_path)) as owned:
        (tmp_path / "lock").unlink()
        assert owner(str(tmp_path)) is not None
        with pytest.raises(LockedError, match="Another run owns"), lock(str(tmp_path)):
            pass
        owned.require()  # puts it back
        assert f"process {os.getpid()}" in str(owner(str(tmp_path)))
    assert owner(str(tmp_path)) is None


def test_a_lock_that_another_run_has_by_now_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where folders cannot be locked, the next run locks a new file: the first one must not go on."""
    real = fcntl.flock

    def only_files(handle: int, how: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EBADF, "as NFS says")
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", only_files)
    with lock(str(tmp_path)) as first:
        first.require()
        (tmp_path / "lock").unlink()
        with lock(str(tmp_path)) as second:
            second.require()
            with pytest.raises(LockedError, match="Another run owns"):
                first.require()


def test_a_run_directory_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with lock(str(run_dir)) as owned:
        run_dir.rename(tmp_path / "away")
        with pytest.raises(LockedError, match="removed, or replaced"):
            owned.require()
        with lock(str(run_dir)), pytest.raises(LockedError, match="removed, or replaced"):
            owned.require()


def test_a_lock_that_is_a_link_leaves_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("dear")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError), lock(str(tmp_path / "run")):
        pass
    assert (tmp_path / "victim").read_text() == "dear"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EROFS, r"Got: Read-only file system.*Mount it for writing, or set another"),
        (errno.EACCES, r"Got: Permission denied.*Set another: --set run_dir"),
    ],
)
@pytest.mark.parametrize("call", [(tempfile, "TemporaryFile"), (Path, "mkdir")])
def test_why_a_run_directory_cannot_be_written_is_what_the_disk_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str, call: tuple[object, str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(*call, refuse)
    with pytest.raises(ConfigError, match=said), lock(str(tmp_path)):
        pass


def test_the_probe_leaves_nothing(tmp_path: Path) -> None:
    with lock(str(tmp_path)):
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]
