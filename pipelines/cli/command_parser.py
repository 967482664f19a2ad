"""A parser of commands that says what was probably meant."""

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from curation.errors import ConfigError
from curation.printed import visible
from pipelines.config.path_text import expand_path

_CHOICE = re.compile(r"invalid choice: '(.*)' \(choose from (.*)\)", re.S)


class CommandParser(argparse.ArgumentParser):
    """Suggests the right name for a mistyped command, flag or choice; its parsers of commands do so too."""

    _given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; what was given is kept for the error."""
        self._given = list(args or ())
        return super().parse_known_args(args, namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, and the parser of the command says what it does not know."""
        found, extras = self.parse_known_args(args, namespace)
        if extras:
            self._of_command(found).error(f"unrecognized arguments: {' '.join(extras)}")
        return found

    def error(self, message: str) -> NoReturn:
        """One line after the usage, with the nearest name where there is one; exit code 2."""
        if found := _CHOICE.search(message):
            names = [name.strip().strip("'") for name in found[2].split(",")]
            unknown = [(found[1], names)]
        else:
            flags = [flag for action in self._actions for flag in action.option_strings]
            unknown = [
                (given.partition("=")[0], flags)
                for given in self._given
                if given.startswith("--") and not any(f.startswith(given.partition("=")[0]) for f in flags)
            ]
            if unknown and message.startswith("the following arguments are required"):
                # What is mistyped may be what is missing.
                message = f"unrecognized arguments: {' '.join(name for name, _ in unknown)}"
        near = [difflib.get_close_matches(name, names, n=1) for name, names in unknown]
        meant = "".join(f"; did you mean {names[0]}?" for names in near if names)
        super().error(visible(message + meant))

    def _of_command(self, found: argparse.Namespace) -> argparse.ArgumentParser:
        for action in self._actions:
            if isinstance(action.choices, dict) and (name := getattr(found, action.dest, None)):
                command: argparse.ArgumentParser = action.choices[name]
                return command
        return self


def path_argument(text: str) -> str:
    """A path as the shell would have made it, had it stood alone: `--out=~/x` reaches us as it stands."""
    if not text.startswith("~"):
        return text
    try:
        return expand_path(text.replace("$", "$$"), at="")
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def count_argument(text: str) -> int:
    """A whole number from 1 on."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if number < 1 or number != number // 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1 on is expected")
    return int(number)
