"""A distillation as `lvd distill` does it: its config, and one process or several."""

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
from pipelines.config.strict_yaml import dump_yaml
from pipelines.engine.lock import lock
from pipelines.engine.signals import stop_on_sigterm
from pipelines.training import torchrun
from pipelines.training.first_word import missing_data
from pretrain import distill as trainer
from pretrain.checkpoint_files import step_dir, student_dir
from pretrain.distill_config import DistillConfig

RESOLVED = "distill.yaml"


def load_distillation(path: str, overrides: Sequence[str]) -> DistillConfig:
    """Read the config of a distillation.

    Args:
        path: the file; a bare name is also looked for among the configs that come with lvd.
        overrides: each `a.b.0.c=value`, by the fields of the file.

    Raises:
        ConfigError: naming the file, the field, the value and what is allowed.
    """
    file, data = read_config(path, overrides, folders=ALL_FOLDERS)
    return validate(data, where=str(file))


def validate(data: dict[str, Any], *, where: str) -> DistillConfig:
    """The distillation that `data` describes, with a run directory and a dataset.

    Raises:
        ConfigError: with a line for every field that is wrong.
    """
    try:
        config = DistillConfig.model_validate(data)
    except ValidationError as error:
        lines = fault_lines(error, DistillConfig, data)
        raise ConfigError(f"{where} is not a valid config of a distillation: " + "; ".join(lines)) from error
    if lines := secret_lines(config.model_dump(mode="json")):
        raise ConfigError(f"{where} is not a valid config of a distillation: " + "; ".join(lines))
    run_dir = config.run_dir or f"runs/{config.name}"
    if not storage.is_local(run_dir):
        raise ConfigError(
            f"{where}: run_dir must be a folder of the file system",
            got=storage.redact(run_dir),
            expected="a path that all machines share",
        )
    if not config.data.has_data:
        raise missing_data(where)
    return config.model_copy(update={"run_dir": run_dir})


def distill(config: DistillConfig, *, arguments: Sequence[str]) -> dict[str, Path]:
    """Distil, or go on with a distillation, in this process or in several.

    Args:
        config: with `run_dir`, and `data.path` or `data.mix`, set.
        arguments: of `lvd`, the command's name first, from which other processes get the same config.

    Returns:
        The folder of each student's last checkpoint, by name.

    Raises:
        LvdError: as the trainer says.
        StoppedError: on SIGTERM, after a checkpoint of every student.
    """
    assert config.run_dir is not None
    run_dir = Path(config.run_dir)
    if config.parallel.processes > 1 and not torchrun.is_rank():
        threads = config.parallel.threads
        torchrun.launch(arguments, num_processes=config.parallel.processes, threads=threads)
        return {name: step_dir(student_dir(run_dir, name), config.schedule.total) for name in config.students}
    with ExitStack() as owned, stop_on_sigterm():
        if torchrun.rank() == 0:
            owned.enter_context(lock(config.run_dir))
            remove_temporaries(storage.local_path(config.run_dir), deep=False)
            text = dump_yaml(redacted(config.model_dump(mode="json")))
            storage.publish_bytes(storage.join(config.run_dir, RESOLVED), text.encode(), replace=True)
        return trainer.distill(config)
