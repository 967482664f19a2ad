"""Files and folders of a run have the modes that the umask leaves: a group can read it, and go on with it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

UMASK = 0o002


@pytest.fixture
def for_a_group() -> Iterator[None]:
    before = os.umask(UMASK)
    yield
    os.umask(before)


@pytest.mark.usefixtures("for_a_group")
def test_a_group_can_write_what_a_run_writes(
    configure: Callable[..., object], run_quietly: Callable[..., object], tmp_path: Path
) -> None:
    run_quietly(configure(tmp_path / "made" / "run"))
    made = list((tmp_path / "made").rglob("*"))
    assert {path.suffix for path in made} >= {".tar", ".parquet", ".json", ".jsonl"}
    usual = {True: 0o777 & ~UMASK, False: 0o666 & ~UMASK}
    assert [path for path in made if path.stat().st_mode & 0o777 != usual[path.is_dir()]] == []
