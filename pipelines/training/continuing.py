"""Trainings that go on from one that has begun: made longer, cooled down, branched, or at another stage."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curation.errors import ConfigError
from pipelines.config.path_text import expand_paths
from pipelines.config.read import ALL_FOLDERS, apply_override, read_config, read_yaml
from pipelines.training.first_word import RESOLVED
from pipelines.training.pretraining import require_data, validate
from pretrain.checkpoint_files import complete_steps, is_checkpoint, read_facts, step_dir
from pretrain.config import PretrainConfig

# Of the training that has begun, and not of one that begins with it.
OWN = ("name", "run_dir", "start")
# Of a training, and not of its next stage.
NOT_CARRIED = (*OWN, "schedule", "checkpoint", "max_skipped")


def load_continuation(path: str, overrides: Sequence[str]) -> PretrainConfig:
    """The training in a run directory, to be gone on with; or, with another run_dir, a branch of it.

    A branch begins with the checkpoint, goes on with its iterations and with the images that would have come
    next, and may have other settings but for the shapes of backbone and heads.

    Args:
        path: a run directory, or a checkpoint of it.
        overrides: each `a.b=value`.

    Raises:
        ConfigError: nothing has begun there, or a checkpoint is to be gone on with in its own run directory.
    """
    begun = Path(path)
    run_dir = begun.parents[1] if is_checkpoint(begun) else begun
    data = begun_settings(path)
    own = {name: data.pop(name, None) for name in OWN}
    for override in overrides:
        apply_override(data, override)
    expand_paths(data, where=path)
    target = Path(data.get("run_dir") or run_dir)
    if target.resolve() != run_dir.resolve():
        start = {"checkpoint": path, **(data.get("start") or {})}
        model = {**data["model"], "weights": None}
        branch = {"name": target.name, **data, "start": start, "model": model}
        return require_data(validate(branch, where=path), where=path)
    if is_checkpoint(begun):
        raise ConfigError(
            f"{path} is one checkpoint of a training, which goes on from its newest",
            got=f"run_dir {target}",
            expected="a run_dir of its own for a branch from this checkpoint",
            remedy=f"Set it: --set run_dir=…; or go on with the training: lvd pretrain {run_dir}",
        )
    same = {**own, **data, "run_dir": str(run_dir)}
    return require_data(validate({k: v for k, v in same.items() if v is not None}, where=path), where=path)


def load_adaptation(path: str, overrides: Sequence[str]) -> PretrainConfig:
    """Another stage of a training: what the config says, and all else as in what it begins with.

    Args:
        path: of a config with `start.checkpoint`, and a schedule of its own.
        overrides: each `a.b=value`.

    Raises:
        ConfigError: it does not say what it begins with, or nothing has begun there.
    """
    file, data = read_config(path, overrides, folders=ALL_FOLDERS)
    start = data.get("start") or {}
    if "checkpoint" not in start:
        raise ConfigError(
            f"{file}: start.checkpoint is missing",
            expected="the run directory of a training, or one of its checkpoints",
            remedy="Set it: --set start.checkpoint=RUN_DIR",
        )
    whole = adaptation_of(begun_settings(start["checkpoint"]), {**data, "start": start})
    return require_data(validate(whole, where=str(file)), where=str(file))


def adaptation_of(before: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of another stage.

    Args:
        before: all settings of the training that it begins with.
        own: what is said of it itself; its schedule is wholly its own.
    """
    kept = {name: value for name, value in before.items() if name not in NOT_CARRIED}
    kept["model"] = {**kept["model"], "weights": None}
    if kept.get("gram"):
        kept["gram"] = {**kept["gram"], "start": 0}  # a number of iterations of the stage before
    return merged(kept, {**own, "start": {"schedule": "anew", **own["start"]}})


def begun_settings(path: str) -> dict[str, Any]:
    """The settings of a training that has begun, as its config would say them.

    Args:
        path: its run directory, or a checkpoint of it.

    Raises:
        ConfigError: when no training has begun there.
    """
    begun = Path(path)
    steps = [] if is_checkpoint(begun) else complete_steps(begun)
    folder = begun if is_checkpoint(begun) else step_dir(begun, steps[-1]) if steps else None
    try:
        identity = dict(read_facts(folder)["identity"]) if folder else {}
    except (OSError, ValueError, LookupError, TypeError):
        identity = {}
    if "students" in identity:
        raise ConfigError(
            f"{path} is a student of a distillation, whose heads and targets are those of its teacher",
            expected="a run directory of `lvd pretrain` or `lvd adapt`",
            remedy="Go on with the distillation: lvd distill CONFIG; or train its backbone further, with new "
            f"heads: lvd pretrain CONFIG --set model.weights={path}",
        )
    if folder is None or "model" not in identity:
        raise ConfigError(
            f"No training has begun in {path}",
            got="no complete checkpoint of `lvd pretrain`" if begun.is_dir() else "no folder",
            expected="a run directory with checkpoints/step-…, or one of these",
        )
    identity.pop("data")  # hashes; where the images lie says the run's own config
    resolved = folder.parents[1] / RESOLVED
    settings = merged(read_yaml(resolved) if resolved.is_file() else {}, identity)
    # The folder may be somebody else's: what runs commands is allowed anew, by whoever begins with it.
    settings.get("data", {}).pop("allow_pipe", None)
    return settings


def merged(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings with some of them changed."""
    made = dict(before)
    for key, value in changes.items():
        old = made.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            made[key] = merged(old, value)
        else:
            made[key] = value
    return made
