"""The documents are true: the config reference is current, and what the README shows parses and validates."""

import argparse
import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from pipelines.cli.main import build_parser
from pipelines.config.run_config import validate

REPO = Path(__file__).resolve().parents[1]
README = (REPO / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _blocks(*languages: str) -> list[str]:
    return [text for language, text in BLOCK.findall(README) if language in languages]


def _commands() -> list[str]:
    lines = "\n".join(_blocks("", "sh", "console")).replace("\\\n", " ").splitlines()
    stripped = (line.strip().removeprefix("$ ") for line in lines)
    return [line for line in stripped if line.startswith("lvd ")]


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _parse(command: str, parser: argparse.ArgumentParser) -> None:
    try:
        parser.parse_args(shlex.split(command, comments=True)[1:])
    except SystemExit as error:
        if error.code:
            pytest.fail(f"the README shows a command that does not parse: {command}")


def test_the_config_reference_is_current() -> None:
    made = _load(REPO / "docs" / "make_config_reference.py").reference()
    there = (REPO / "docs" / "config.md").read_text(encoding="utf-8")
    assert made == there, f"run {Path(sys.executable).name} docs/make_config_reference.py"


def test_every_command_of_the_readme_parses() -> None:
    commands = _commands()
    assert len(commands) >= 10
    parser = build_parser()
    for command in commands:
        _parse(command, parser)


def test_every_command_of_lvd_is_in_the_readme() -> None:
    (choices,) = (a.choices for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    shown = {command.split()[1] for command in _commands()}
    # `make demo` stands for `lvd demo`.
    assert set(choices) - {"demo"} <= shown


def test_every_config_of_the_readme_is_valid() -> None:
    whole = [block for block in _blocks("yaml") if "pools:" in block]
    assert whole
    for block in whole:
        validate(yaml.safe_load(block), where="README.md")


def test_every_fragment_of_the_readme_is_valid() -> None:
    configs = [yaml.safe_load(block) for block in _blocks("yaml")]
    (first, *_) = (config for config in configs if "pools" in config)
    for config in configs:
        validate({**first, **config}, where="README.md")


def test_every_link_of_the_readme_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)[)#]", README):
        assert (REPO / target).exists(), target


def test_every_file_of_infra_parses() -> None:
    documents = list(yaml.safe_load_all((REPO / "infra" / "kuberay.yaml").read_text(encoding="utf-8")))
    config_map, job = documents
    validate(yaml.safe_load(config_map["data"]["curate.yaml"]), where="infra/kuberay.yaml")
    _parse(job["spec"]["entrypoint"], build_parser())
    constraints = (REPO / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"ray=={job['spec']['rayClusterSpec']['rayVersion']}" in constraints
