"""A program of which another process tells how it ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults.processes import MARK, left_behind, marked, new_mark

from curation.errors import ExecutorError
from pipelines.engine.last_words import PASSED_ON, is_lost

# Under `nohup` a SIGHUP is ignored, in whatever it starts too.
PROGRAM = """
import os, signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from pipelines.engine.last_words import go_on_apart, knowingly
go_on_apart()
print("begun", flush=True)
"""
BRIEFLY_S = 30
REPO = Path(__file__).resolve().parents[3]


@contextmanager
def program(tmp_path: Path, what: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A program that goes on apart and then does `what`, and its mark."""
    file, mark = tmp_path / "program.py", new_mark()
    file.write_text(PROGRAM + what)
    with subprocess.Popen(
        [sys.executable, file],
        env={**os.environ, **mark, "PYTHONPATH": str(REPO)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield process, mark[MARK]
    assert not left_behind(mark[MARK], timeout_s=BRIEFLY_S)


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("import atexit; atexit.register(os._exit, 4); raise SystemExit(5)", 1),
        ("knowingly(); os._exit(1)", 1),
        ("subprocess = __import__('subprocess').Popen(['sleep', '0.5']); sys.exit(143)", 143),
    ],
)
def test_it_ends_as_the_program_ends(tmp_path: Path, what: str, code: int) -> None:
    with program(tmp_path, what) as (process, _):
        _, words = process.communicate(timeout=BRIEFLY_S)
    assert process.returncode == code
    # Of an exit that no handler of ours saw, it says so.
    assert ("lvd: " in words) == ("os._exit, 4" in what)


def test_an_end_without_a_word_gets_words(tmp_path: Path) -> None:
    with program(tmp_path, "os._exit(1)") as (process, _):
        _, words = process.communicate(timeout=BRIEFLY_S)
    assert process.returncode == 1
    assert words.startswith(
        "lvd: The Ray cluster is lost, or failed. Got: its node on this machine has ended"
    )
    assert "it goes on where it was" in words


def test_a_program_that_is_killed_gets_words(tmp_path: Path) -> None:
    with program(tmp_path, "os.kill(os.getpid(), 9)") as (process, _):
        _, words = process.communicate(timeout=BRIEFLY_S)
    assert process.returncode == 1
    assert "ended by SIGKILL" in words


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_program(tmp_path: Path, number: signal.Signals) -> None:
    what = (
        "import signal\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(77))\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )
    with program(tmp_path, what) as (process, _):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(BRIEFLY_S) == 77


def test_a_signal_that_nobody_handles_ends_both(tmp_path: Path) -> None:
    with program(tmp_path, "time.sleep(60)") as (process, _):
        process.send_signal(signal.SIGHUP)
        _, words = process.communicate(timeout=BRIEFLY_S)
    assert process.returncode == -signal.SIGHUP
    assert not words


def test_the_program_ends_with_the_process_that_watches(tmp_path: Path) -> None:
    with program(tmp_path, "time.sleep(60)") as (process, mark):
        process.kill()
        process.wait()
        end = time.monotonic() + BRIEFLY_S
        while marked(mark) and time.monotonic() < end:
            time.sleep(0.05)
        assert not marked(mark)


def test_a_cluster_that_is_lost_says_why_and_what_to_do() -> None:
    error = is_lost("its head does not answer")
    assert isinstance(error, ExecutorError)
    assert "its head does not answer" in str(error)
    assert "run the same command again" in str(error)
    assert signal.SIGTERM in PASSED_ON
