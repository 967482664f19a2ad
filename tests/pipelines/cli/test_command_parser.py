"""A mistyped command, flag or choice is told what was probably meant."""

import argparse
import json
from typing import Any

import pytest

from curation.errors import ConfigError
from pipelines.cli.command_parser import count_argument, path_argument
from pipelines.cli.main import main
from pipelines.engine.output import print_error, print_json, print_lines


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["statsu", "x"], "did you mean status?"),
        (["dedup", "x", "--thresold", "0.9"], "--thresold 0.9; did you mean --threshold?"),
        (["dedup", "x", "--thresold=0.9"], "did you mean --threshold?"),
        (["search", "x", "--iamge", "f"], "did you mean --image?"),
        (["run", "x", "--executor", "loacl"], "did you mean local?"),
        (["run", "x", "--until", "retreive"], "did you mean retrieve?"),
        (["export", "x", "--format", "tim", "--out", "y"], "did you mean timm?"),
        (["--verison"], "error: unrecognized arguments: --verison; did you mean --version?"),
        (["search", "--iamge=f"], "error: unrecognized arguments: --iamge; did you mean --image?"),
        (["search", "--json"], "error: the following arguments are required: "),
        (["plan", "x", "--nodes", "0"], "'0': a whole number from 1 on is expected"),
        (["plan", "x", "--gpus", "1.5"], "'1.5': a whole number from 1 on is expected"),
        (["status", "x", "--\x1b[2Jx"], "\\u001b[2Jx"),
        (["status", "x", "--qqqq"], "unrecognized arguments: --qqqq"),
        (["demo", "--out=~nobody-of-this-name/x"], "~nobody-of-this-name is nobody's home"),
    ],
)  # fmt: skip
def test_what_was_meant(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    text = capsys.readouterr().err
    assert said in text
    assert "\x1b" not in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("lvd ")


def test_values_of_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert path_argument("~/x$y") == "/home/me/x$y"  # a variable the shell has seen to
    assert path_argument("$x/~") == "$x/~"
    assert (count_argument("1e3"), count_argument("7")) == (1000, 7)
    for text in ("nan", "inf", "-1", "many"):
        with pytest.raises(argparse.ArgumentTypeError):
            count_argument(text)


NAME = "a\x1b[2J\nlvd: all done\u009b31m\u202e\U000e0041\udcff é"


def test_no_name_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_lines([NAME, "b"])
    print_json({"key": NAME})
    print_error(f"No image. Got: {NAME}. See https://x/?sig=HUSH")
    said: Any = capsys.readouterr()
    shown, second, data = said.out.splitlines()
    assert (second, "é" in shown) == ("b", True)
    assert json.loads(data) == {"key": NAME}
    for line in (shown, data, *said.err.splitlines()):
        assert line.isprintable()
    assert [line[:2] for line in said.err.splitlines()] == ["lv", "  "]
    assert "HUSH" not in said.err
    assert "\x1b" not in str(ConfigError("x", got=NAME))
