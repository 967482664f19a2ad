"""What a run directory says of itself: the config of its run, and the manifest of its dataset.

`run.yaml` is the config of the run that was started last, which may still go on, or have stopped; the dataset
in the manifest may be of another. Each run saves its config by its hash too, `configs/SHA256.yaml`.
"""

from pathlib import Path
from typing import Any

from curation import storage
from curation.errors import ConfigError, IntegrityError
from curation.local_reads import NotRegularError
from curation.shard.manifest import RUN_KEYS, Manifest, parse_manifest
from pipelines.config.read import read_yaml
from pipelines.config.run_config import RunConfig, config_sha256, resolved_yaml, validate


def read_run_config(run_dir: str) -> RunConfig:
    """The config in `run.yaml`, whose run directory is the one given: it may have been moved.

    Raises:
        ConfigError: when there is none, or none that this version of lvd knows.
        IntegrityError: when it is not what a run has written: what it says is done may not be what is in use.
    """
    file = config_file(run_dir)
    if not file.is_file():
        raise ConfigError(
            f"{run_dir} is no run directory", got="no run.yaml", expected="the run_dir of a run"
        )
    sha256, _ = storage.sha256_file(str(file))
    if not Path(storage.local_path(run_dir), saved_config(sha256)).is_file():
        raise IntegrityError(
            f"{file} is not what a run has written: it is damaged, or was edited",
            got=f"SHA-256 {sha256}",
            expected="that of one of the files in configs/",
            remedy="Run the same config again: it is written anew",
        )
    return _read(file, run_dir)


def save_config(run_dir: str, config: RunConfig) -> None:
    """Save the config of a run as `run.yaml`, and by its hash, which its dataset's manifest names."""
    text, by_hash = resolved_yaml(config).encode(), saved_config(config_sha256(config))
    for file in (Path(storage.local_path(run_dir), by_hash), config_file(run_dir)):
        storage.publish_bytes(str(file), text, replace=True)


def read_dataset_config(run_dir: str, manifest: Manifest) -> RunConfig:
    """The config that the dataset in `manifest` was made with, whatever has run since.

    Raises:
        ConfigError: when it is not known, or none that this version of lvd knows.
    """
    return _read(dataset_config_file(run_dir, manifest), run_dir)


def dataset_config_file(run_dir: str, manifest: Manifest) -> Path:
    """Where the config lies that the dataset in `manifest` was made with.

    Raises:
        ConfigError: when it is not known any more.
        IntegrityError: when it is there, and damaged.
    """
    sha256 = manifest["config_sha256"]
    saved, last = Path(storage.local_path(run_dir), saved_config(sha256)), config_file(run_dir)
    for file in (saved, last):
        if file.is_file() and storage.sha256_file(str(file))[0] == sha256:
            return file
    remedy = "Run the config that you want to ask about again: what is done is found"
    if saved.is_file():
        raise IntegrityError(
            f"The config of the dataset in {run_dir} is damaged: {saved}",
            got="a file that is not what its name says",
            expected=f"one whose SHA-256 is {sha256}",
            remedy=remedy,
        )
    raise ConfigError(
        f"The config of the dataset in {run_dir} is not known any more",
        got="a run.yaml of another config",
        expected=f"one whose SHA-256 is {sha256}",
        remedy=remedy,
    )


def _read(file: Path, run_dir: str) -> RunConfig:
    return validate(_as_named_now(read_yaml(file)), where=str(file)).model_copy(update={"run_dir": run_dir})


def _as_named_now(saved: dict[str, Any]) -> dict[str, Any]:
    """A saved config under today's names: a dataset stays readable when a field moves."""
    describe = saved.get("describe", {})
    embed = dict(describe.get("embed", {}))
    if "threads" not in embed:
        return saved
    executor = {"threads": embed.pop("threads"), **saved.get("executor", {})}
    return {**saved, "describe": {**describe, "embed": embed}, "executor": executor}


def saved_config(sha256: str) -> str:
    """Where a config of this hash is saved, relative to the run directory."""
    return f"configs/{sha256}.yaml"


def config_file(run_dir: str) -> Path:
    """Where the config of a run lies."""
    return Path(storage.local_path(run_dir)) / "run.yaml"


def read_manifest(run_dir: str) -> Manifest:
    """The manifest of a finished run.

    Raises:
        ConfigError: when `run_dir` has none.
        IntegrityError: when it is damaged.
    """
    path = storage.join(run_dir, "manifest.json")
    remedy = "Run the same config again: it is replaced"
    try:
        text = storage.read_bytes(path)
    except FileNotFoundError as error:
        raise ConfigError(
            f"No finished dataset in {run_dir}",
            got="no manifest.json",
            expected="the run_dir of a run that has ended",
            remedy=f"`lvd status {run_dir}` tells how far it is",
        ) from error
    except NotRegularError as error:
        raise IntegrityError(f"{path} is no manifest", got=error.strerror, remedy=remedy) from error
    return parse_manifest(text, where=path, keys=RUN_KEYS, remedy=remedy)
