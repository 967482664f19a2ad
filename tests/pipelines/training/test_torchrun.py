"""Several processes of one training: how they are ended, and what their end is called."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from faults.processes import MARK, is_rank, is_torchrun, kill_marked, left_behind, marked, new_mark

from curation.errors import ConfigError, ExecutorError, IntegrityError, StoppedError
from pipelines.training import torchrun


def test_signals_are_passed_on() -> None:
    script = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(7)); time.sleep(60)"
    before = signal.getsignal(signal.SIGTERM)
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    code, received = torchrun._wait_for([sys.executable, "-c", script], dict(os.environ))
    timer.join()
    assert (code, received) == (7, [signal.SIGTERM])
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("code", "received", "codes", "error"),
    [
        (1, [signal.SIGTERM], {0: 143, 1: 143}, StoppedError),
        (1, [signal.SIGTERM], {}, StoppedError),  # before it had begun
        (1, [signal.SIGTERM], {0: 1, 1: 143}, ExecutorError),
        (1, [signal.SIGINT], {0: 130, 1: 130}, KeyboardInterrupt),
        (1, [], {0: 2, 1: 2}, ConfigError),
        (1, [], {1: 1}, ExecutorError),
        (0, [signal.SIGTERM], {0: 0, 1: 0}, None),  # it was done all the same
    ],
)
def test_how_the_processes_ended(
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    received: list[int],
    codes: dict[int, int],
    error: type[BaseException] | None,
) -> None:
    def ended(command: list[str], environment: dict[str, str]) -> tuple[int, list[int]]:
        assert command[-3:] == ["pipelines.cli", "pretrain", "c.yaml"]
        assert "--nproc-per-node=2" in command
        for rank, one in codes.items():
            (Path(environment[torchrun.EXIT_CODES]) / str(rank)).write_text(str(one))
        return code, received

    monkeypatch.setattr(torchrun, "_wait_for", ended)
    if error is None:
        torchrun.launch(["pretrain", "c.yaml"], num_processes=2, threads=1)
        return
    with pytest.raises(error) as caught:
        torchrun.launch(["pretrain", "c.yaml"], num_processes=2, threads=1)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (ConfigError("no"), 2),
        (IntegrityError("no"), 1),
        (StoppedError("no"), 143),
        (KeyboardInterrupt(), 130),
        (ValueError(), 1),
    ],
)
def test_a_process_leaves_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException | None, code: int
) -> None:
    monkeypatch.setenv(torchrun.EXIT_CODES, str(tmp_path))
    monkeypatch.setenv("RANK", "3")

    def end() -> None:
        with torchrun.exit_code_noted():
            if error is not None:
                raise error

    if error is None:
        end()
    else:
        with pytest.raises(type(error)):
            end()
    assert (tmp_path / "3").read_text() == str(code)


def _training(tmp_path: Path, finished: Path, *, num_steps: int) -> tuple[list[str], Path]:
    from test_pretraining import TRAINING

    settings = {
        **TRAINING,
        "run_dir": str(tmp_path / "training"),
        "data": {"path": str(finished), "workers": 0},
        "schedule": {"iterations": num_steps},
        "checkpoint": {"every": 100_000, "keep": 1},
        "parallel": {**TRAINING["parallel"], "processes": 2},
    }
    file = tmp_path / "t.yaml"
    file.write_text(yaml.safe_dump(settings))
    return [sys.executable, "-m", "pipelines.cli", "pretrain", str(file)], tmp_path / "training"


@pytest.mark.accept
def test_two_processes_train_and_stop_and_go_on(tmp_path: Path, finished: Path) -> None:
    command, run_dir = _training(tmp_path, finished, num_steps=100_000)
    metrics = run_dir / "metrics.jsonl"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 600
        while not (metrics.exists() and metrics.read_text().count("\n") > 3) and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=600)[1]
    assert process.returncode == 143, said
    assert "Traceback" not in said
    assert said.count("Stopped after step") == 1
    [saved] = (run_dir / "checkpoints").glob("step-*/training.json")
    step = json.loads(saved.read_text())["step"]
    assert step >= 3
    again = [*command, "--set", f"schedule.iterations={step + 2}", "--json"]
    done = subprocess.run(again, capture_output=True, text=True, check=False, timeout=600)
    # Another schedule is another training.
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("was written by") == 1


@pytest.mark.accept
def test_two_processes_say_once_what_is_wrong(tmp_path: Path, finished: Path) -> None:
    command, run_dir = _training(tmp_path, finished, num_steps=3)
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"checkpoint": str(run_dir / "checkpoints" / "step-00000003")}
    odd = [*command, "--set", "batch_images=5", "--set", f"run_dir={tmp_path}/odd"]
    done = subprocess.run(odd, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("cannot share a batch evenly") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.accept
@pytest.mark.parametrize("victim", ["launcher", "torchrun", "rank"])
def test_whoever_is_killed_nobody_trains_on(victim: str, tmp_path: Path, finished: Path) -> None:
    command, run_dir = _training(tmp_path, finished, num_steps=100_000)
    metrics, mark = run_dir / "metrics.jsonl", new_mark()
    folder = tmp_path / "tmp"
    folder.mkdir()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=os.environ | mark | {"TMPDIR": str(folder)}, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 600
        while not (metrics.exists() and metrics.read_text().count("\n") > 3):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert sum(is_rank(words) for words in marked(mark[MARK]).values()) >= 2
        if victim == "launcher":
            process.kill()
        elif victim == "torchrun":
            assert len(kill_marked(mark[MARK], is_torchrun)) == 1
        else:
            rank = next(
                pid for pid, words in marked(mark[MARK]).items() if is_rank(words) and pid != process.pid
            )
            os.kill(rank, signal.SIGKILL)
        code = process.wait(120)
    finally:
        process.kill()
        left = left_behind(mark[MARK], timeout_s=90)
    assert not left
    assert code == (-signal.SIGKILL if victim == "launcher" else 1)
    if victim != "rank":  # they have been asked to stop, and have saved what they had
        [saved] = (run_dir / "checkpoints").glob("step-*/training.json")
        assert json.loads(saved.read_text())["step"] >= 3
    if victim == "launcher":
        assert not list(folder.glob("lvd-exit-codes-*"))


def test_an_exit_code_that_was_torn_is_none(tmp_path: Path) -> None:
    for name, text in (("0", "143"), ("1", ""), ("2", "14\n3")):
        (tmp_path / name).write_text(text)
    assert torchrun._read_codes(tmp_path) == {0: 143}


def test_an_exit_code_that_cannot_be_left_hides_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(torchrun.EXIT_CODES, str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match="no"), torchrun.exit_code_noted():
        raise ConfigError("no")
    assert "exit code of rank 0 cannot be noted" in capsys.readouterr().err
