"""What every command that trains looks at and says before torch is imported, which takes seconds.

The config itself is validated behind that, by models that need torch.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from curation import storage
from curation.errors import ConfigError
from curation.printed import redact_url, visible
from curation.shard.read import open_dataset
from pipelines.config.path_text import expand_paths
from pipelines.config.read import ALL_FOLDERS, apply_override, read_config, read_yaml
from pretrain.checkpoint_files import complete_steps, is_checkpoint

RESOLVED = "pretrain.yaml"
Kind = Literal["pretrain", "adapt", "distill", "chain"]
# What stands in patterns, in commands and in names of tars, which others look at.
_OF_PATTERNS = ("*", "{", "pipe:", ".tar")


def say_first_word(path: str, overrides: Sequence[str], *, kind: Kind) -> None:
    """Look at the paths of a training, and say on stderr what is going to be read.

    Args:
        path: of a config, or of a training that has begun.
        overrides: each `a.b.0.c=value`.
        kind: the command. An adaptation takes what it does not say from the training that start.checkpoint
            names.

    Raises:
        ConfigError: no config or training is there, or run_dir cannot be written.
        SourceError, IntegrityError: there is no dataset, or one that is damaged.
    """
    settings = _settings(path, overrides, kind=kind)
    data_paths, run_dir = _data_paths(settings), _text(settings, "run_dir")
    if run_dir and storage.is_local(run_dir):
        require_place(storage.local_path(run_dir))
    words = f"reading {', '.join(map(_shown, data_paths)) or path}"
    if run_dir:
        words += f"; writing {run_dir}"
    print(visible(f"lvd: {words}"), file=sys.stderr, flush=True)


def _shown(path: str) -> str:
    """A dataset by its path and, where a look does not take long, by what it has."""
    if not storage.is_local(path) or any(sign in path for sign in _OF_PATTERNS):
        return redact_url(path)
    reader, _ = open_dataset(path)
    with reader:
        return f"{path} ({len(reader):,} images in {len(reader.shards):,} shards)"


def missing_data(where: str) -> ConfigError:
    """What is said of a training that does not say what it is trained on."""
    return ConfigError(
        f"{where}: data.path is missing",
        expected="a run directory of `lvd run`, its manifest.json, or a pattern of tars; or data.mix",
        remedy="Set it: --set data.path=RUN_DIR",
    )


def require_place(run_dir: Path) -> None:
    """See that a run directory can be written, or made, without making it.

    Raises:
        ConfigError: when it cannot.
    """
    place = run_dir
    while not place.exists() and place != place.parent:
        place = place.parent
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return
    raise ConfigError(
        f"run_dir cannot be written: {run_dir}",
        got="this user may not write there" if place.is_dir() else f"{place} is a file",
        expected="a folder that this user may write, or a place for one",
        remedy="Set another: --set run_dir=DIR",
    )


def _settings(path: str, overrides: Sequence[str], *, kind: Kind) -> dict[str, Any]:
    """The settings of a training as far as they are read here, not validated."""
    begun = Path(path)
    if kind == "pretrain" and begun.is_dir():
        return _begun(begun, overrides)
    file, data = read_config(path, overrides, folders=ALL_FOLDERS)
    if kind == "chain":
        # Each of its trainings has the common data or its own, which are looked at when they are validated.
        return {"run_dir": f"runs/{data.get('name') or kind}", **data}
    if kind == "pretrain" and ("pools" in data or "pretrain" in data):
        section = data.get("pretrain")
        own = section if isinstance(section, dict) else {}
        run_dir = _text(data, "run_dir") or f"runs/{data.get('name') or 'dataset'}"
        own_data = own.get("data") if _data_paths(own) else {"path": run_dir}
        written = _text(own, "run_dir") or storage.join(run_dir, "pretrain")
        return {"data": own_data, "run_dir": written}
    if kind != "adapt" and isinstance(data.get("data") or {}, dict) and not _data_paths(data):
        raise missing_data(str(file))
    return {"run_dir": f"runs/{data.get('name') or ('distill' if kind == 'distill' else 'pretrain')}", **data}


def _begun(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    run_dir = path.parents[1] if is_checkpoint(path) else path
    if not is_checkpoint(path) and not complete_steps(path):
        raise ConfigError(
            f"No training has begun in {path}",
            got="no complete checkpoint of `lvd pretrain`",
            expected="a run directory with checkpoints/step-…, or one of these",
        )
    resolved = run_dir / RESOLVED
    data = read_yaml(resolved) if resolved.is_file() else {}
    data["run_dir"] = str(run_dir)
    for override in overrides:
        apply_override(data, override)
    expand_paths(data, where=str(path))
    return data


def _data_paths(settings: Any) -> list[str]:
    """The paths of what is read: of one dataset, or of several that are mixed."""
    data = settings.get("data") if isinstance(settings, dict) else None
    mixed = data.get("mix") if isinstance(data, dict) else None
    found = [_text(part, "path") for part in (mixed if isinstance(mixed, list) else [data])]
    return [path for path in found if path]


def _text(data: Any, *names: str) -> str | None:
    """A setting that is a text, below these names; None for anything else, of which validation tells."""
    for name in names:
        data = data.get(name) if isinstance(data, dict) else None
    return data if isinstance(data, str) and data else None
