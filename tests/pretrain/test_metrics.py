"""`metrics.jsonl` is for people and plots: no damage to it and no full disk stops a training."""

import json
import os
import shutil
from pathlib import Path

import pytest
from test_train import alone

from pretrain import train
from pretrain.checkpoint_files import step_dir
from pretrain.metrics import MetricsLog, ProgressLine, read_metrics

TORN = [
    pytest.param(b'{"step": 2, "lo{"step": 3, "loss": 3.0}', id="two lines in one"),
    pytest.param(b'{"step": 2, "los', id="half a line"),
    pytest.param(b"\0" * 64, id="zeros, as a file system leaves them"),
    pytest.param(b'{"step": 2, "loss": 1.0\xff\xfe}', id="not UTF-8"),
    pytest.param(b"17", id="a number"),
    pytest.param(b'{"loss": 1.0}', id="no step"),
    pytest.param(b'{"step": "2"}', id="a step that is none"),
    pytest.param(b"[" * 100_000, id="too deep for the parser"),
]


@pytest.mark.parametrize("torn", TORN)
def test_a_torn_line_within_is_left_out(torn: bytes, tmp_path: Path) -> None:
    whole = [json.dumps({"step": step, "loss": float(step)}).encode() for step in (1, 4, 5, 6)]
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([whole[0], torn, *whole[1:]]) + b"\n")
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 4, 5, 6]
    said: list[str] = []
    log = MetricsLog(tmp_path, first_step=5, warn=said.append)
    log.write({"step": 6, "loss": 6.5})
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [
        (1, 1),
        (4, 4),
        (5, 5),
        (6, 6.5),
    ]
    assert len(path.read_text().splitlines()) == 4
    [line] = said
    assert f"{path}: 1 torn line" in line


def test_a_disk_that_fills_up_costs_lines_alone(tmp_path: Path) -> None:
    said: list[str] = []
    log = MetricsLog(tmp_path, first_step=0, warn=said.append)
    log.write({"step": 1})
    path = tmp_path / "metrics.jsonl"
    aside = tmp_path / "aside"
    path.rename(aside)
    path.symlink_to("/dev/full")
    for step in (2, 3):
        log.write({"step": step})
    path.unlink()
    aside.rename(path)
    with path.open("a") as out:
        out.write('{"step": 2, "lo')  # as much as there was room for
    for step in (4, 5):
        log.write({"step": step})
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 4, 5]
    [line] = said
    assert str(path) in line
    assert os.strerror(28) in line


def test_what_is_no_file_at_all_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    said: list[str] = []
    log = MetricsLog(tmp_path, first_step=3, warn=said.append)
    log.write({"step": 4})
    assert len(said) == 1


def test_a_torn_line_of_the_log_blocks_no_resume(drawn: Path, tmp_path: Path) -> None:
    config = alone(drawn, tmp_path / "run")
    train.train(config, quiet=True)
    shutil.rmtree(step_dir(tmp_path / "run", 6))
    path = tmp_path / "run" / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[1][:9] + lines[2], *lines[3:]]))
    assert train.train(config, quiet=True) == step_dir(tmp_path / "run", 6)
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 4, 5, 6]


def test_no_name_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    ProgressLine(10).say("going on from run\x1b[2J\rdir/step-3")
    assert capsys.readouterr().err == "going on from run\\u001b[2J\\u000ddir/step-3\n"
