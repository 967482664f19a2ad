"""Words that cannot be told end no run, and a result that did not arrive is an exit code."""

import io
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.streams import FAULTS, Fault, run_with

from pipelines.cli.main import main
from pipelines.engine.progress import Progress
from pipelines.engine.streams import Stream, Streams

LVD = [sys.executable, "-m", "pipelines.cli"]
WORDS = {"closed": os.strerror(9), "full": os.strerror(28)}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_result_that_does_not_arrive_is_an_exit_code(fault: Fault, finished: Path) -> None:
    done = run_with([*LVD, "status", str(finished), "--json"], stdout=fault)
    if fault == "unread":  # `lvd … | head`, which has read what it wanted
        assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
    else:
        assert done.returncode == 1
        assert done.stderr == f"lvd: The result could not be printed on stdout: {WORDS[fault]}.\n"


@pytest.mark.parametrize(("stdout", "stderr"), [("closed", "closed"), ("full", "full"), ("unread", "full")])
def test_who_can_tell_nobody_ends_with_a_code(stdout: Fault, stderr: Fault, finished: Path) -> None:
    done = run_with([*LVD, "status", str(finished)], stdout=stdout, stderr=stderr)
    assert done.returncode == (128 + signal.SIGPIPE if stdout == "unread" else 1)
    assert not done.stdout
    assert not done.stderr


def test_help_that_does_not_arrive() -> None:
    done = run_with([*LVD, "--help"], stdout="full")
    assert done.returncode == 1
    assert "could not be printed" in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("fault", FAULTS)
def test_progress_that_cannot_be_told_ends_no_run(
    fault: Fault,
    *,
    tmp_path: Path,
    finished: Path,
    config_file: Callable[..., Path],
    digests: Callable[[Path], dict[str, str]],
) -> None:
    config = config_file(tmp_path / "c.yaml", tmp_path / "run")
    done = run_with([*LVD, "run", str(config), "--executor", "local", "--json"], stderr=fault)
    assert done.returncode == 0
    manifest = json.loads(done.stdout)  # and nothing else
    assert manifest["complete"]
    assert digests(tmp_path / "run") == digests(finished)


def test_a_run_whose_result_is_lost_is_done_all_the_same(
    tmp_path: Path,
    finished: Path,
    config_file: Callable[..., Path],
    digests: Callable[[Path], dict[str, str]],
) -> None:
    config = config_file(tmp_path / "c.yaml", tmp_path / "run")
    done = run_with([*LVD, "run", str(config), "--executor", "local"], stdout="full")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("lvd: The result could not be printed on stdout")
    assert "Traceback" not in done.stderr
    assert digests(tmp_path / "run") == digests(finished)


@pytest.mark.parametrize("fault", ["closed", "unread"])
def test_an_error_that_cannot_be_told_is_still_its_code(fault: Fault) -> None:
    done = run_with([*LVD, "status", "/not/there"], stderr=fault)
    assert (done.returncode, done.stdout) == (2, "")


def test_a_log_that_cannot_be_written_ends_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    (tmp_path / "file").touch()
    progress.log_to(str(tmp_path / "file" / "logs"))
    with progress.step("one", total=1, done=0):
        pass
    progress.log_to(str(tmp_path / "logs"))
    assert progress.log is not None
    progress.log.symlink_to("/dev/full")
    for name in ("two", "three"):
        with progress.step(name, total=1, done=0):
            pass
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in said if "in 0.0 s" in line] == ["one", "two", "three"]
    assert sum("cannot be written" in line for line in said) == 2


def test_streams_are_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = (sys.stdout, sys.stderr)
    with Streams() as streams:
        assert sys.stdout is streams.out
        print("result")
        assert streams.exit_code(3) == 3
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "result\n"
    with pytest.raises(SystemExit):
        main(["--help"])
    assert (sys.stdout, sys.stderr) == before


def test_what_an_encoding_cannot_say_is_escaped() -> None:
    raw = io.BytesIO()
    stream = Stream(io.TextIOWrapper(raw, encoding="ascii"), 1)
    print("naïve \udcff", file=stream, flush=True)
    assert raw.getvalue() == b"na\\xefve \\udcff\n"
    assert stream.error is None
