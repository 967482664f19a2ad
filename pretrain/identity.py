"""What decides which numbers come out of a training, and what of it may change while it goes on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from curation.errors import ConfigError

# Where and how it runs: other values, the same training (but for the rounding and the draws of ranks).
FREE = frozenset(
    {
        "name", "run_dir", "data", "checkpoint", "probe", "parallel", "max_skipped", "accumulate", "sinks",
        "start",
    }
)  # fmt: skip


def identity_of(config: BaseModel, *, dataset: str, window_images: int) -> dict[str, object]:
    """The data and its order, and every setting but where it runs.

    What a training began with is not among them: it is in the facts of its checkpoints, by hash.
    """
    settings = config.model_dump(mode="json", exclude=set(FREE))
    return {**settings, "data": {"sha256": dataset, "window_images": window_images}}


def require_same(saved: dict[str, Any], now: dict[str, Any], folder: Path, *, step: int) -> None:
    """Refuse to go on with another training than was begun.

    Args:
        saved: the identity in a checkpoint.
        now: that of the config.
        folder: of the checkpoint.
        step: its iteration: a schedule may get another tail that begins there or later.

    Raises:
        ConfigError: naming every setting that differs, alone.
    """
    saved, now = (_without_later_tail(identity, step) for identity in (saved, now))
    if changed := list(_changes(saved, now)):
        raise ConfigError(
            f"{folder} was written by another training: {'; '.join(changed)}",
            remedy="Change it back; or branch from this checkpoint, or begin anew, in a run_dir of its own: "
            f"lvd pretrain {folder} --set run_dir=…",
        )


def _without_later_tail(identity: dict[str, Any], step: int) -> dict[str, Any]:
    """The identity up to a step: a tail that has not begun by then has changed nothing so far."""
    schedule = identity.get("schedule")
    if not isinstance(schedule, dict) or not schedule.get("tail") or schedule["tail"]["at"] < step:
        return identity
    return {**identity, "schedule": {**schedule, "tail": None}}


def _changes(saved: Any, now: Any, name: str = "") -> Iterator[str]:
    """The settings that differ, each alone and as `--set` names it: `schedule.base_lr: 0.004, was 0.008`.

    Of a list of another length, and of what was or is null, the whole is told.
    """
    if isinstance(saved, dict) and isinstance(now, dict):
        for key in [*now, *(key for key in saved if key not in now)]:
            yield from _changes(saved.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif isinstance(saved, list) and isinstance(now, list) and len(saved) == len(now):
        for number, (old, new) in enumerate(zip(saved, now, strict=True)):
            yield from _changes(old, new, f"{name}.{number}")
    elif saved != now:
        yield f"{name}: {json.dumps(now)}, was {json.dumps(saved)}"
