"""A run on a disk that is too small says so in a sentence, and goes on to the same bytes once it is not."""

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.disks import enlarge, fill, small_disk

from curation.dedup.edges import Edges
from curation.errors import ExecutorError
from pipelines.cli.main import main
from pipelines.engine.row_notes import SCRATCH
from pipelines.engine.step import Attempt, Item, NoSettings, Step, Work, perform
from pipelines.stages.copies.spool import spooled

ROOM = 64 << 20
ITEM = Item(NoSettings())


@pytest.mark.parametrize(("share", "num_inodes"), [(0.1, 0), (0.5, 0), (0.9, 0), (4.0, 60)])
def test_a_run_on_a_full_disk_goes_on_when_there_is_room(
    share: float,
    num_inodes: int,
    *,
    tmp_path: Path,
    finished: Path,
    config_file: Callable[..., Path],
    digests: Callable[[Path], dict[str, str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = (path.stat() for path in finished.rglob("*") if path.is_file())
    used = sum({file.st_ino: file.st_blocks * 512 for file in files}.values())
    with small_disk(tmp_path / "disk", num_bytes=int(used * share), num_inodes=num_inodes) as disk:
        run_dir = disk / "run"
        command = ["run", str(config_file(tmp_path / "c.yaml", run_dir)), "--executor", "local"]
        assert main(command) == 1
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("lvd: The file system has no room" if num_inodes else "lvd: The disk is full")
        assert str(run_dir) in said
        assert "run the same command again" in said
        done = len(list(run_dir.glob("steps/*/*/receipt.json")))
        enlarge(disk, num_bytes=ROOM)
        assert main(command) == 0, capsys.readouterr().err
        assert digests(run_dir) == digests(finished)
        assert len(list(run_dir.glob("steps/*/*/receipt.json"))) > done


def load_refused(number: int) -> Work[NoSettings]:
    """A work that some library fails in, without a path."""

    def work(_attempt: Attempt[NoSettings]) -> dict[str, Any]:
        raise OSError(number, os.strerror(number))

    return work


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.EFBIG]
)
def test_work_that_is_refused_names_where(number: int, tmp_path: Path) -> None:
    step = Step("touch", 1, number, load_refused, "describe")
    with pytest.raises(ExecutorError, match=rf": {tmp_path}/{re.escape(SCRATCH)}/\w+\.") as caught:
        perform(step.work(), step, ITEM, run_dir=str(tmp_path))
    assert caught.value.remedy
    assert not list((tmp_path / SCRATCH).iterdir())


def test_work_on_a_full_disk_leaves_room_behind(tmp_path: Path) -> None:
    def work(attempt: Attempt) -> dict[str, Any]:
        (attempt.out / "big").write_bytes(b"x" * (1 << 20))
        return {}

    step = Step("touch", 1, NoSettings(), lambda _: work, "describe")
    with small_disk(tmp_path / "disk", num_bytes=512 << 10) as disk:
        with pytest.raises(ExecutorError, match="The disk is full"):
            perform(work, step, ITEM, run_dir=str(disk))
        assert shutil.disk_usage(disk).free > 400 << 10
        fill(disk)
        with pytest.raises(ExecutorError, match="The disk is full"):
            perform(lambda _attempt: {}, step, ITEM, run_dir=str(disk))


def test_a_full_temporary_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 20_000
    edges = Edges(np.arange(n), np.arange(n) + 1, np.ones(n), np.zeros(n, np.int8))
    with small_disk(tmp_path / "disk", num_bytes=64 << 10) as disk:
        monkeypatch.setattr("tempfile.tempdir", str(disk))
        with pytest.raises(ExecutorError, match=f"The disk is full: {disk}"):
            list(spooled([(edges, np.zeros(n, np.int64))], 1))
        assert not list(disk.iterdir())
