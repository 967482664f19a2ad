"""Ray's own words do not reach people, and a SIGTERM waits until Ray has started."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType

import pytest

from pipelines.engine.around_ray import sigterm_held, terminal_kept
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


def test_sigterm_waits_and_meets_the_handler_that_was_there() -> None:
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = signal.signal(signal.SIGTERM, note)
    try:
        with sigterm_held():
            # To this thread: another one of the tests' process might meet the handler of the next line.
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as Ray's own
            # As Ray starts its processes; they must hear a SIGTERM.
            words = ["sh", "-c", "kill -TERM $$; echo deaf"]
            started = subprocess.run(words, preexec_fn=lambda: None, capture_output=True, check=False)
            assert started.returncode == -signal.SIGTERM
            assert not received
        assert received == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is note
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_ray_makes_of_a_sigterm_meets_the_handler_too() -> None:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyError

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(KeyError), sigterm_held():
            raise SystemExit(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
