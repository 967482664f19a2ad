"""What a run directory says of itself: the config of its run, and the manifest of its dataset."""

import json
from pathlib import Path
from typing import Any

from curation import storage
from curation.errors import ConfigError, IntegrityError
from pipelines.config import RunConfig, read_yaml, validate


def read_run_config(run_dir: str) -> RunConfig:
    """The config in `run.yaml`, whose run directory is the one given: it may have been moved.

    Raises:
        ConfigError: when there is none, or none that this version of lvd knows.
    """
    file = config_file(run_dir)
    if not file.is_file():
        raise ConfigError(
            f"{run_dir} is no run directory", got="no run.yaml", expected="the run_dir of a run"
        )
    return validate(read_yaml(file), where=str(file)).model_copy(update={"run_dir": run_dir})


def config_file(run_dir: str) -> Path:
    """Where the config of a run lies."""
    return Path(storage.local_path(run_dir)) / "run.yaml"


def read_manifest(run_dir: str) -> dict[str, Any]:
    """The manifest of a finished run.

    Raises:
        ConfigError: when `run_dir` has none.
        IntegrityError: when it is damaged.
    """
    path = storage.join(run_dir, "manifest.json")
    try:
        return json.loads(storage.read_bytes(path))
    except FileNotFoundError as error:
        raise ConfigError(
            f"No finished dataset in {run_dir}",
            got="no manifest.json",
            expected="the run_dir of a run that has ended",
            remedy=f"`lvd status {run_dir}` tells how far it is",
        ) from error
    except ValueError as error:
        remedy = "Run the same config again: it is replaced"
        raise IntegrityError(f"{path} is damaged", got=error, remedy=remedy) from error
