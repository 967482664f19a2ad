"""The command line: exit codes, JSON, help, and no traceback for a user's mistake."""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from curation.errors import StoppedError
from curation.pictures.decode import DecodeConfig, decode
from pipelines.cli.main import build_parser, main
from pipelines.engine.signals import stop_on_sigterm


def commands() -> list[str]:
    [action] = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return list(action.choices)


@pytest.mark.parametrize("command", commands())
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) > 8
    assert "default" in text or "RUN_DIR" in text or "CONFIG" in text or "CHECKPOINT" in text


@pytest.mark.parametrize(
    "config", ["https://u:secret@h/x.yaml", "https:/u:secret@h/x.yaml", "s3://b/x.yaml?sig=secret"]
)
@pytest.mark.parametrize("command", ["plan", "run", "pretrain"])
def test_no_command_shows_a_password(command: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, config]) == 2
    shown = capsys.readouterr()
    assert "***" in shown.err
    assert "secret" not in shown.out + shown.err


@pytest.mark.parametrize(
    "raised",
    ["MemoryError()", 'RuntimeError("can\'t start new thread")', "OSError(12, 'Cannot allocate memory')"],
)
def test_no_memory_is_said(
    raised: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipelines.cli.answers._status", _import(f"raise {raised}"))
    assert main(["status", "anywhere"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("lvd: There is no memory left for `lvd status`")
    assert "ulimit -v" in said


def _import(line: str) -> Callable[[argparse.Namespace], int]:
    def command(_: argparse.Namespace) -> int:
        exec(line, {})
        return 0

    return command


def test_a_package_that_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipelines.cli.answers._status", _import("import no_such_package"))
    assert main(["status", "anywhere"]) == 2
    assert "A package is missing: No module named 'no_such_package'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "install"), [("open_clip", "open_clip_torch"), ("PIL.Image", "pillow"), ("scipy", "scipy")]
)
def test_a_missing_package_has_the_name_that_pip_knows(
    module: str, install: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raised = f"raise ModuleNotFoundError('No module named {module}', name='{module}')"
    monkeypatch.setattr("pipelines.cli.answers._status", _import(raised))
    assert main(["status", "anywhere"]) == 2
    assert f"pip install {install}, or lvd" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["EISDIR", "ENOTDIR", "EEXIST", "ELOOP", "ENAMETOOLONG"])
def test_an_odd_entry_is_said_with_what_to_do(
    number: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raised = f"import errno; raise OSError(errno.{number}, 'short words', '/somewhere/x')"
    monkeypatch.setattr("pipelines.cli.answers._status", _import(raised))
    assert main(["status", "anywhere"]) == 1
    said = capsys.readouterr().err
    assert "/somewhere/x" in said
    assert "run the same command again" in said
    assert "short words" not in said


@pytest.mark.parametrize(
    "line", ["from curation.errors import Nothing", "import pipelines.nothing", "from json import nothing"]
)
def test_a_broken_import_is_no_missing_package(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours: its traceback is what helps, and pip does not."""
    monkeypatch.setattr("pipelines.cli.answers._status", _import(line))
    with pytest.raises(ImportError):
        main(["status", "anywhere"])


@pytest.mark.parametrize("arguments", [[], ["fly"], ["run"], ["run", "c.yaml", "--until", "lunch"]])
def test_bad_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: lvd" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "none.yaml"],
        ["plan", "none.yaml"],
        ["pretrain", "none.yaml"],
        ["pretrain", "tiny_cpu.yaml"],
        ["evaluate", "gist", "--train", "nowhere", "--test", "nowhere"],
        ["status", "nowhere"],
        ["report", "nowhere"],
        ["explain", "nowhere", "a.jpg"],
        ["search", "nowhere", "--id", "a.jpg"],
        ["verify", "nowhere"],
        ["clean", "nowhere"],
    ],
)
def test_a_users_mistake_is_a_paragraph_and_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("lvd: ")
    assert said.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_source_that_is_not_there_is_1(
    tmp_path: Path, config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_file(tmp_path / "c.yaml", tmp_path / "run", "pools.web.sources.0.path=/not/there")
    assert main(["run", str(config)]) == 1
    said = capsys.readouterr().err
    assert "/not/there" in said
    assert "Traceback" not in said


def test_ctrl_c_is_130(
    tmp_path: Path,
    config_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.run.curate", interrupted)
    config = config_file(tmp_path / "c.yaml", tmp_path / "run")
    assert main(["run", str(config)]) == 130
    assert "goes on where it was" in capsys.readouterr().err


def test_sigterm_is_143_and_leaves_a_run_to_resume(tmp_path: Path, config_file: Callable[..., Path]) -> None:
    run_dir = tmp_path / "run"
    config = config_file(tmp_path / "c.yaml", run_dir)
    command = [sys.executable, "-m", "pipelines.cli", "run", str(config)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not list(run_dir.glob("steps/describe/*/receipt.json")) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=30)[1]
    assert process.returncode == 143
    assert "lvd: Stopped by SIGTERM." in said
    assert "Traceback" not in said
    assert not list(run_dir.glob("tmp/in-flight-*"))  # it was stopped, and did not die of an image


def test_a_stop_is_no_fault_of_the_picture_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not be written down as corrupt, nor the run go on."""

    def stopped(_exif: Image.Exif) -> None:
        signal.raise_signal(signal.SIGTERM)

    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG")
    monkeypatch.setattr("curation.pictures.decode.orientation_of", stopped)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError) as error, stop_on_sigterm():
        decode(out.getvalue(), need_side_px=8, config=DecodeConfig())
    assert error.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_until_stops_and_the_rest_follows(
    tmp_path: Path, config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    config = str(config_file(tmp_path / "c.yaml", run_dir))
    assert main(["plan", config, "--no-probe", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [(state["name"], state["num_done"]) for state in plan["states"]] == [("ingest_units", 0)]
    assert [plan["to_come"][0], plan["to_come"][-1], len(plan["to_come"])] == ["ingest", "lineage", 14]
    assert plan["steps"] == []
    assert not run_dir.exists()  # a plan writes nothing
    assert main(["run", config, "--until", "judge", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["stopped_after"] == "judge"
    done = ["ingest_units", "ingest", "describe", "judge"]
    assert [step["name"] for step in found["steps"]] == done
    assert sorted(path.name for path in (run_dir / "steps").iterdir()) == sorted(done)
    assert not (run_dir / "manifest.json").exists()
    assert main(["status", str(run_dir), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not found["finished"]
    assert found["counts"] is None
    assert [state["name"] for state in found["steps"]] == [*done, "dedup_rows"]
    assert main(["plan", config, "--no-probe"]) == 0
    assert "dedup_rows" in capsys.readouterr().out


def test_readers_of_a_finished_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ask(*arguments: str) -> Any:
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    run_dir = str(finished)
    plan = ask("plan", str(finished / "run.yaml"))
    assert plan["states"][-1]["name"] == plan["steps"][-1]["name"] == "lineage"
    # Every step that the run has done was foreseen, in its order.
    assert [s["name"] for s in plan["states"]] == [s["name"] for s in plan["steps"]]
    assert plan["wall_s"] == 0
    status = ask("status", run_dir)
    assert status["finished"]
    assert status["complete"]
    assert status["owner"] is None
    assert ask("verify", run_dir) == {"faults": []}
    assert not ask("clean", run_dir)["removed"]
    for command in ("status", "verify", "clean"):
        assert main([command, run_dir]) == 0
        assert capsys.readouterr().out.strip()


def test_explain_by_key_and_by_id(
    finished: Path, rows_of: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of(finished, "lineage").to_pylist()
    copy = next(row for row in rows if row["reason"] == "near_copy")
    assert main(["explain", str(finished), copy["key"], "--pool", copy["pool"], "--json"]) == 0
    [found] = json.loads(capsys.readouterr().out)["images"]
    members = found.pop("copies")
    assert found.pop("story")["dedup"]["score"] == copy["score"]
    assert found == copy
    assert copy["by_key"] in {member["key"] for member in members}
    for row in rows[:: len(rows) // 8]:
        if row["image_id"] is not None:
            assert main(["explain", str(finished), row["image_id"][:12]]) == 0
            assert row["key"] in capsys.readouterr().out
    assert main(["explain", str(finished), "no-such-key.jpg"]) == 2
    assert "no-such-key.jpg" in capsys.readouterr().err


def test_a_full_disk_names_its_path(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_arguments: argparse.Namespace) -> int:
        raise OSError(28, os.strerror(28), "/runs/x/steps/a")

    monkeypatch.setattr("pipelines.cli.answers._status", full)
    assert main(["status", "x"]) == 1
    assert capsys.readouterr().err.startswith("lvd: The disk is full: /runs/x/steps/a. Got: ")


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_file_of_vectors_that_is_not_there_is_2(
    tmp_path: Path, config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    override = "describe.embed.embedder=precomputed:/not/there.parquet"
    config = config_file(tmp_path / "c.yaml", tmp_path / "run", override)
    assert main([command, str(config)]) == 2
    said = capsys.readouterr().err
    assert "describe.embed.embedder" in said
    assert "/not/there.parquet" in said


def test_a_reader_that_has_gone_is_no_failure(finished: Path) -> None:
    source, sink = os.pipe()
    os.close(source)
    command = [sys.executable, "-m", "pipelines.cli", "verify", str(finished)]
    with os.fdopen(sink, "wb") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")
