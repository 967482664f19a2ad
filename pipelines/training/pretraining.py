"""A training as `lvd pretrain` and `lvd run` do it: its config, and one process or several."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from curation import storage
from curation.errors import ConfigError
from curation.local_files import remove_temporaries
from curation.printed import redacted
from pipelines.config.faults import fault_lines, secret_lines
from pipelines.config.read import ALL_FOLDERS, read_config
from pipelines.config.run_config import RunConfig
from pipelines.config.run_config import validate as validate_run
from pipelines.config.strict_yaml import dump_yaml
from pipelines.engine.lock import lock
from pipelines.engine.signals import stop_on_sigterm
from pipelines.training import torchrun
from pipelines.training.first_word import RESOLVED, missing_data
from pretrain.checkpoint_files import step_dir
from pretrain.config import PretrainConfig
from pretrain.train import train


def load_pretraining(path: str, overrides: Sequence[str]) -> PretrainConfig:
    """Read the config of a training: a file of its own, or a run's with a section `pretrain`.

    Args:
        path: the file; a bare name is also looked for among the configs that come with lvd.
        overrides: each `a.b.0.c=value`, by the fields of the file.

    Raises:
        ConfigError: naming the file, the field, the value and what is allowed.
    """
    file, data = read_config(path, overrides, folders=ALL_FOLDERS)
    if "pools" not in data and "pretrain" not in data:
        return require_data(validate(data, where=str(file)), where=str(file))
    config = validate_run(data, where=str(file))
    if config.pretrain is None:
        raise ConfigError(
            f"{file} is the config of a run without a training",
            got="no section pretrain",
            expected="batch_images, schedule.iterations, … below pretrain, or a config of a training alone",
        )
    return pretraining_of(config)


def pretraining_of(config: RunConfig) -> PretrainConfig:
    """The training on what a run curates: it reads the run directory, and writes below it."""
    section = PretrainConfig.model_validate(config.pretrain)
    data = section.data
    if not data.has_data:
        data = data.model_copy(update={"path": config.run_dir})
    run_dir = section.run_dir or storage.join(config.run_dir, "pretrain")
    training = section.model_copy(update={"data": data, "run_dir": run_dir})
    _require_local(training, where="pretrain")
    return training


def validate(data: dict[str, Any], *, where: str) -> PretrainConfig:
    """The training that `data` describes, with a run directory.

    Raises:
        ConfigError: with a line for every field that is wrong.
    """
    try:
        config = PretrainConfig.model_validate(data)
    except ValidationError as error:
        lines = fault_lines(error, PretrainConfig, data)
        raise ConfigError(f"{where} is not a valid config of a training: " + "; ".join(lines)) from error
    if lines := secret_lines(config.model_dump(mode="json")):
        raise ConfigError(f"{where} is not a valid config of a training: " + "; ".join(lines))
    config = config.model_copy(update={"run_dir": config.run_dir or f"runs/{config.name}"})
    _require_local(config, where=where)
    return config


def _require_local(config: PretrainConfig, *, where: str) -> None:
    assert config.run_dir is not None
    if not storage.is_local(config.run_dir):
        raise ConfigError(
            f"{where}: run_dir must be a folder of the file system",
            got=storage.redact(config.run_dir),
            expected="a path that all machines share",
        )


def require_data(config: PretrainConfig, *, where: str) -> PretrainConfig:
    """See that a training says what it is trained on.

    Raises:
        ConfigError: when it does not.
    """
    if not config.data.has_data:
        raise missing_data(where)
    return config


def pretrain(config: PretrainConfig, *, arguments: Sequence[str]) -> Path:
    """Train, or go on with a training, in this process or in several.

    Args:
        config: with `run_dir`, and `data.path` or `data.mix`, set.
        arguments: of `lvd`, the command's name first, from which other processes get the same config.

    Returns:
        The folder of the last checkpoint.

    Raises:
        LvdError: as the trainer says.
        StoppedError: on SIGTERM, after a checkpoint.
    """
    assert config.run_dir is not None
    if config.parallel.processes > 1 and not torchrun.is_rank():
        threads = config.parallel.threads
        torchrun.launch(arguments, num_processes=config.parallel.processes, threads=threads)
        return step_dir(Path(config.run_dir), config.schedule.total)
    with ExitStack() as owned, stop_on_sigterm():
        if torchrun.rank() == 0:
            owned.enter_context(lock(config.run_dir))
            remove_temporaries(storage.local_path(config.run_dir), deep=False)
            path = storage.join(config.run_dir, RESOLVED)
            storage.publish_bytes(path, resolved_yaml(config).encode(), replace=True)
        return train(config)


def resolved_yaml(config: PretrainConfig) -> str:
    """The config as `pretrain.yaml` has it: every default spelled out, no credentials."""
    return dump_yaml(redacted(config.model_dump(mode="json")))
