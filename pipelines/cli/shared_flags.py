"""What the commands of `lvd` share: how one is made, flags, and the two ways in which they answer."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.engine.output import print_json, print_lines


def add_command(
    commands: Any,
    name: str,
    work: Callable[[argparse.Namespace], int],
    *,
    does: str,
    text: str,
    example: str | None = None,
) -> argparse.ArgumentParser:
    """A command, which answers in lines for people or, with `--json`, for programs.

    Args:
        work: does it, and gives the exit code.
        does: what it does, in the list of commands.
        text: what it does, in its own help.
    """
    epilog = example and f"example: {example}"
    command: argparse.ArgumentParser = commands.add_parser(name, help=does, description=text, epilog=epilog)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(command=work)
    return command


def add_run_dir(command: argparse.ArgumentParser) -> None:
    """The run that is asked about."""
    command.add_argument("run_dir", metavar="RUN_DIR")


def add_config_arguments(command: argparse.ArgumentParser) -> None:
    """The config of a run or a training, and what is set on top of it."""
    command.add_argument(
        "config", metavar="CONFIG", help="a YAML file, or the name of one that comes with lvd"
    )
    command.add_argument(
        "--set", dest="overrides", metavar="FIELD=VALUE", action="append", default=[],
        help="set a field, such as dedup.phash_radius=4; may be given again",
    )  # fmt: skip


def config_arguments(config: str, overrides: Sequence[str]) -> list[str]:
    """The arguments from which another process reads the same config."""
    return [config, *(part for override in overrides for part in ("--set", override))]


def show(arguments: argparse.Namespace, data: object, lines: Sequence[str]) -> None:
    """Print one line of JSON where that is asked for, else lines for people."""
    if arguments.json:
        print_json(data)
    else:
        print_lines(lines)
