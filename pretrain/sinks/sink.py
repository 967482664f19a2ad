"""What a sink is, and what it is told of the training whose numbers it takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Told:
    """What a sink is told when it is opened.

    Attributes:
        name: of the training.
        run: names this training among all others, and stays the same when it is resumed.
        run_dir: of the training.
        first_step: the training goes on behind it; 0 for one that begins.
        settings: the config, without credentials.
    """

    name: str
    run: str
    run_dir: Path
    first_step: int
    settings: Mapping[str, Any]


@runtime_checkable
class Sink(Protocol):
    """Takes the numbers of a training. Whatever it raises ends the sink and no training."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take finite numbers, by the names that they have in `metrics.jsonl`."""

    def close(self, *, is_done: bool) -> None:
        """Give on what was taken. `is_done`: whether the training has come to its end."""


def leaves(settings: Mapping[str, Any], *, at: str = "") -> dict[str, Any]:
    """The single settings of a nested config, each by its dotted name; lists are one setting."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= leaves(value, at=f"{at}{key}.")
        else:
            found[f"{at}{key}"] = value
    return found
