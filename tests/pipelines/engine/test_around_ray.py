"""Ray's own words do not reach people, and what is set in its environment stays."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.engine.around_ray import prepare_ray_environment, terminal_kept
from pipelines.engine.progress import Progress

PROGRAM = """
import os, subprocess, sys
from pipelines.engine.around_ray import terminal_kept
from pipelines.engine.progress import Progress

progress = Progress()
progress.say("before")
try:
    with terminal_kept(progress, sys.argv[1]):
        os.write(2, b"a library's words\\n")
        print("a result of nobody", flush=True)
        print("Python's words", file=sys.stderr)
        subprocess.run(["sh", "-c", "echo a child\\\\'s words >&2"], check=True)
        progress.say("ours")
        raise KeyError
except KeyError:
    progress.say("after")
    os.write(2, b"its last words\\n")
print("result")
"""


def test_only_our_words_reach_people(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "logs")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "result\n"
    assert done.stderr.splitlines() == ["before", "ours", "after", "its last words"]
    [log] = (tmp_path / "logs").iterdir()
    assert log.read_text().splitlines() == [
        "a library's words",
        "a result of nobody",
        "Python's words",
        "a child's words",
    ]


def test_a_log_that_cannot_be_had_ends_no_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs").touch()
    with terminal_kept(Progress(), str(tmp_path / "logs")):
        os.write(2, b"a library's words\n")
    said = capfd.readouterr().err
    assert "cannot be written" in said
    assert "library" not in said


def test_what_ray_reads_from_the_environment_is_set_where_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "info")
    with monkeypatch.context() as kept:
        kept.setattr(os, "environ", dict(os.environ))
        prepare_ray_environment()
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert os.environ["RAY_BACKEND_LOG_LEVEL"] == "info"
