"""The families of commands: what their flags mean, and how each answers."""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import pipelines.cli.__main__
from pipelines.cli import answers, curating, training
from pipelines.cli.command_parser import CommandParser
from pipelines.cli.main import main
from pipelines.cli.shared_flags import (
    add_command,
    add_config_arguments,
    add_run_dir,
    config_arguments,
    show,
)
from pipelines.training.evaluate import Measured


def _parsed(add: Sequence[object], line: str) -> argparse.Namespace:
    parser = CommandParser(prog="lvd")
    commands = parser.add_subparsers(dest="name", required=True)
    for one in add:
        one(commands)  # type: ignore[operator]
    return parser.parse_args(line.split())


def test_a_command_has_its_work_json_and_what_it_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    def add(commands: object) -> None:
        command = add_command(commands, "look", lambda _: 7, does="looks", text="Look.", example="lvd look x")
        add_run_dir(command)

    found = _parsed([add], "look runs/x --json")
    assert (found.command(found), found.run_dir, found.json) == (7, "runs/x", True)
    with pytest.raises(SystemExit):
        _parsed([add], "look --help")
    assert "example: lvd look x" in capsys.readouterr().out


def test_a_config_is_handed_on_as_it_was_given() -> None:
    def add(commands: object) -> None:
        add_config_arguments(add_command(commands, "do", lambda _: 0, does="does", text="Do."))

    found = _parsed([add], "do c.yaml --set a=1 --set b=x")
    again = config_arguments(found.config, found.overrides)
    assert again == ["c.yaml", "--set", "a=1", "--set", "b=x"]


@pytest.mark.parametrize(("as_json", "shown"), [(True, '{"a": 1}\n'), (False, "one\ntwo\n")])
def test_an_answer_is_lines_or_json(as_json: bool, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    show(argparse.Namespace(json=as_json), {"a": 1}, ["one", "two"])
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(
    "line", ["status r", "report r", "explain r i", "search r --id i", "dedup r", "verify r", "clean r"]
)
def test_who_asks_about_a_run_names_it(line: str) -> None:
    add = (answers.add_readers, answers.add_search, answers.add_dedup, answers.add_verify_and_clean)
    found = _parsed(add, line)
    assert (found.run_dir, found.json) == ("r", False)
    assert callable(found.command)


def test_a_search_is_for_an_image_or_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    found = _parsed([answers.add_search], "search r --image f.jpg -k 3 --kept")
    assert (found.file, found.image, found.k, found.kept) == ("f.jpg", None, 3, True)
    for line in ("search r", "search r --image f --id i", "search r --id i -k 0"):
        with pytest.raises(SystemExit):
            _parsed([answers.add_search], line)
    assert "one of the arguments --id --image is required" in capsys.readouterr().err


def test_a_plan_counts_machines_and_a_run_stops_at_a_stage() -> None:
    found = _parsed([curating.add_plan], "plan c --nodes 2 --images a=1e6 --images 5")
    assert (found.nodes, found.gpus, found.workers, found.images) == (2, None, None, ["a=1e6", "5"])
    found = _parsed([curating.add_run], "run c --until dedup --executor local")
    assert (found.until, found.executor, found.refresh) == ("dedup", "local", False)
    with pytest.raises(SystemExit):
        _parsed([curating.add_run], "run c --until nowhere")


def test_init_writes_a_config_that_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    out = str(tmp_path / "first.yaml")
    found = _parsed([curating.add_init], f"init {tmp_path} --out {out} --json")
    assert found.command(found) == 0
    assert json.loads(capsys.readouterr().out) == {"config": out}
    assert "kind: folder" in Path(out).read_text()


def test_the_commands_of_training() -> None:
    add = (training.add_pretrain, training.add_evaluate, training.add_export)
    found = _parsed(add, "evaluate gist pixels --train a --test b --k 1,5")
    assert (found.embedders, found.train, found.test, found.k) == (["gist", "pixels"], "a", "b", (1, 5))
    found = _parsed(add, "export c --format timm --out d")
    assert (found.checkpoint, found.format, found.out) == ("c", "timm", "d")
    with pytest.raises(SystemExit):
        _parsed(add, "evaluate gist --train a --test b --k 0,5")


def test_what_was_measured_is_a_table() -> None:
    fields = {"num_train": 1200, "num_test": 300, "dim": 384, "rank_me": 41.26, "num_unreadable": 2}
    one = Measured(embedder="gist", knn={10: 0.5, 20: 0.625}, unread=(), notes=(), **fields)
    lines = training.measured_lines([one])
    assert lines[0].split() == ["embedder", "dim", "k-NN,", "k", "=", "10", "k-NN,", "k", "=", "20", "RankMe"]
    assert lines[1].split() == ["gist", "384", "50.0%", "62.5%", "41.3"]
    assert lines[2:] == [
        "300 images classified by 1,200",
        "2 files cannot be read or decoded and are left out",
    ]


def test_the_module_is_the_command() -> None:
    assert pipelines.cli.__main__.main is main
    command = [sys.executable, "-m", pipelines.cli.__main__.__name__.removesuffix(".__main__"), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("lvd ")
