"""The local executor: deaths cost one row, and a killed run is resumed to the byte."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from curation.errors import ConfigError, ExecutorError, IntegrityError, LvdError
from pipelines.engine.local import LocalExecutor
from pipelines.engine.progress import Progress
from pipelines.engine.row_notes import SCRATCH
from pipelines.engine.runner import CONDEMNED_REASON, Death, Runner
from pipelines.engine.step import AnyStep, Attempt, Item, NoSettings, Receipt, Step, Work

PART = Item(NoSettings(), 2)


def load_crasher(deadly: int) -> Work[NoSettings]:
    """Touches every row of a part that is not condemned; one of them ends the process."""

    def work(attempt: Attempt) -> dict[str, Any]:
        for row in range(PART.num_rows):
            if row == deadly and row not in attempt.condemned:
                os.abort()
        (attempt.out / "rows.txt").write_text(str(dict(attempt.condemned)))
        return {"num_rows": PART.num_rows}

    return work


def load_raiser(error: Exception, _settings: NoSettings) -> Work[NoSettings]:
    def work(_attempt: Attempt) -> dict[str, Any]:
        raise error

    return work


def load_killed(_settings: NoSettings) -> Work[NoSettings]:
    def work(_attempt: Attempt) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    return work


def make_step(load: Callable[[Any], Work[NoSettings]], settings: object = NoSettings()) -> AnyStep:
    return Step("touch", 1, settings, load, "describe")


def note_of_death(run_dir: Path, step: AnyStep) -> Path:
    """What a process that died of `PART` leaves behind."""
    note = run_dir / SCRATCH / f"in-flight-{step.identity(PART)}"
    note.parent.mkdir(parents=True)
    note.touch()
    return note


def test_a_row_that_kills_costs_itself_alone(tmp_path: Path) -> None:
    step = make_step(load_crasher, 1)
    note = note_of_death(tmp_path, step)  # or the crash would end this very process
    [receipt] = Runner(str(tmp_path), LocalExecutor(), Progress(quiet=True)).run(step, [PART])
    assert (tmp_path / receipt.folder / "rows.txt").read_text() == str({1: CONDEMNED_REASON})
    assert not note.exists()


def test_what_was_in_flight_is_taken_aside_and_may_well_live(tmp_path: Path) -> None:
    step = make_step(load_crasher, -1)
    note_of_death(tmp_path, step)
    [(position, outcome)] = LocalExecutor().run(step, [PART], str(tmp_path))
    assert position == 0
    assert isinstance(outcome, Death)
    [receipt] = Runner(str(tmp_path), LocalExecutor(), Progress(quiet=True)).run(step, [PART])
    assert (tmp_path / receipt.folder / "rows.txt").read_text() == "{}"


def test_an_exception_is_no_death(tmp_path: Path) -> None:
    executor = LocalExecutor()
    step = make_step(partial(load_raiser, ConfigError("wrong", got=3)))
    with pytest.raises(ConfigError, match=r"wrong\. Got: 3"):
        list(executor.run(step, [PART], str(tmp_path)))
    assert not list((tmp_path / SCRATCH).glob("in-flight-*"))
    with pytest.raises(ConfigError, match=r"wrong\. Got: 3"):
        executor.run_alone(step, PART, str(tmp_path), condemned={}, publish=True)
    bug = make_step(partial(load_raiser, KeyError("our own fault")))
    with pytest.raises(ExecutorError, match="our own fault"):
        executor.run_alone(bug, PART, str(tmp_path), condemned={}, publish=True)


def test_memory_that_runs_out_blames_nobody(tmp_path: Path) -> None:
    outcome = LocalExecutor().run_alone(
        make_step(load_killed), PART, str(tmp_path), condemned={}, publish=True
    )
    assert isinstance(outcome, Death)
    assert not outcome.blames_item


def test_a_run_killed_in_the_middle_is_resumed_to_the_byte(
    *,
    tmp_path: Path,
    finished: Path,
    config_file: Callable[..., Path],
    configure: Callable[..., Any],
    run_quietly: Callable[..., Any],
    digests: Callable[[Path], dict[str, str]],
) -> None:
    run_dir = tmp_path / "run"
    config = config_file(tmp_path / "config.yaml", run_dir)
    command = [sys.executable, "-m", "pipelines.cli", "run", str(config), "--executor", "local"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        # In the middle of describe: one part has its receipt, others have none.
        while not list(run_dir.glob("steps/describe/*/receipt.json")) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (run_dir / "manifest.json").exists()
    done = {path: path.stat().st_mtime_ns for path in run_dir.glob("steps/describe/*/described.parquet")}
    assert done
    assert run_quietly(configure(run_dir)).exit_code == 0
    assert digests(run_dir) == digests(finished)
    again = {path: path.stat().st_mtime_ns for path in done}
    assert sum(again[path] != done[path] for path in done) <= 1  # at most the part that was in flight
    assert not (run_dir / SCRATCH).exists()


def test_errors_cross_processes_whole() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(ConfigError("what", got=1, expected=2, remedy="do")))
    assert isinstance(error, LvdError)
    assert str(error) == "what. Got: 1. Expected: 2. do."
    damaged = pickle.loads(pickle.dumps(IntegrityError("what", got=1, path="/run/steps/a/b/c")))
    assert (type(damaged), damaged.path, damaged.got) == (IntegrityError, "/run/steps/a/b/c", 1)


def test_a_receipt_comes_back_from_a_process_of_its_own(tmp_path: Path) -> None:
    step = make_step(load_crasher, -1)
    receipt = LocalExecutor().run_alone(step, PART, str(tmp_path), condemned={0: "skipped"}, publish=False)
    assert isinstance(receipt, Receipt)
    assert receipt.facts == {"num_rows": 2}
    assert not (tmp_path / "steps").exists()
