"""`lvd plan` of a training: the config of one, or the section of a run's; all of it brings torch."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from curation.errors import ConfigError
from pipelines.config.read import ALL_FOLDERS, read_config
from pipelines.config.run_config import RunConfig
from pipelines.plan.training.answer import TrainingQuestion, plan_training
from pipelines.plan.training.fits import Limits
from pipelines.plan.training.words import training_data, training_lines
from pipelines.training.continuing import load_adaptation, load_continuation
from pipelines.training.pretraining import pretraining_of, validate
from pretrain.config import PretrainConfig

Told = tuple[dict[str, object], list[str]]


def plan_config(arguments: argparse.Namespace) -> Told:
    """The plan of a training alone, as plain data and in lines.

    Raises:
        ConfigError: when the config is not valid, or something is asked that is for a curation.
    """
    for flag, value in (("--images", arguments.images), ("--workers", arguments.workers)):
        if value:
            raise ConfigError(
                f"{flag} is for the plan of a curation",
                got=f"{arguments.config}, the config of a training",
                remedy="Set batch_images, schedule.iterations or data.workers, and --gpus",
            )
    return _told(_training_of(arguments.config, arguments.overrides), arguments, like=arguments.like)


def _training_of(path: str, overrides: Sequence[str]) -> PretrainConfig:
    """One that has begun, another stage of one, or one from the start, whose data need not be there yet."""
    if Path(path).is_dir():
        return load_continuation(path, overrides)
    file, data = read_config(path, overrides, folders=ALL_FOLDERS)
    if "students" in data or "pretrain" in data:
        kind = "a distillation" if "students" in data else "a chain of trainings"
        raise ConfigError(
            f"{file} describes {kind}, whose time and memory are not forecast",
            expected="the config of one training, such as `lvd pretrain` and `lvd adapt` take",
            remedy="Plan its links one by one as trainings; a short run of it tells its rate",
        )
    return load_adaptation(path, overrides) if "start" in data else validate(data, where=str(file))


def plan_section(config: RunConfig, arguments: argparse.Namespace) -> Told:
    """The plan of the training of a run; `--like` may be a run that trained, too."""
    has_trained = arguments.like is not None and (Path(arguments.like) / "pretrain").is_dir()
    return _told(pretraining_of(config), arguments, like=arguments.like if has_trained else None)


def _told(config: PretrainConfig, arguments: argparse.Namespace, *, like: str | None) -> Told:
    num_cards = None if arguments.gpus is None else arguments.gpus * arguments.nodes
    asked = TrainingQuestion(
        limits=Limits(arguments.memory, arguments.deadline),
        num_cards=num_cards,
        like=like,
        rates=arguments.rates,
        measure=arguments.measure,
    )
    plan = plan_training(config, asked)
    return training_data(plan), training_lines(plan)
