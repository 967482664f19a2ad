"""`lvd plan` of a training: its memory, its time, and what fits where it does not."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from curation.cpu import has_bf16
from curation.errors import ConfigError
from pipelines.plan.rates import RatesFile, read_rates
from pipelines.plan.training.fits import Limits, Option, options, training_s
from pipelines.plan.training.shapes import Cards, shape_of
from pipelines.plan.training.speed import Speed, own_speed, published_speed, speed_like
from pretrain.config import PretrainConfig
from pretrain.cost.memory import Moment, moments
from pretrain.cost.shape import Device, TrainingShape


@dataclass(frozen=True)
class TrainingQuestion:
    """What the plan of a training is for.

    Args:
        limits: memory of a card and a deadline.
        num_cards: of all machines; None: parallel.processes.
        like: the run directory of a training whose metrics give the rate.
        rates: a file with published rates.
        measure: whether some steps are done here to learn the rate.
    """

    limits: Limits
    num_cards: int | None = None
    like: str | None = None
    rates: str | None = None
    measure: bool = False


@dataclass(frozen=True)
class TrainingPlan:
    """The answer. `seconds` is None where no rate is known; `options` is empty where all fits, or nothing."""

    config: PretrainConfig
    cards: Cards
    shape: TrainingShape
    moments: Sequence[Moment]
    speed: Speed | None
    limits: Limits
    options: Sequence[Option]

    @property
    def peak(self) -> Moment:
        """The moment at which a card is fullest."""
        return max(self.moments, key=lambda moment: moment.num_bytes)

    @property
    def seconds(self) -> float | None:
        """Of what is left of the training."""
        return training_s(self.shape, self.speed)

    @property
    def fits(self) -> bool:
        """Whether it fits its limits as it is."""
        return self.limits.has_room(self.peak.num_bytes) and self.limits.has_time(self.seconds)


def plan_training(config: PretrainConfig, asked: TrainingQuestion) -> TrainingPlan:
    """Count memory and time of a training; nothing is written to its run directory.

    Raises:
        ConfigError: what is asked cannot be meant, or the ranks cannot share the batch.
        LvdError: as the trainer says, where it is measured.
    """
    file = read_rates(asked.rates) if asked.rates is not None else None
    cards = _cards(config, asked)
    shape = shape_of(config, cards)
    if not shape.is_even:
        raise ConfigError(
            "The batch cannot be cut evenly",
            got=f"batch_images {shape.batch_images}, {shape.ranks} cards, accumulate {shape.accumulate}",
            expected="batch_images a multiple of cards × accumulate",
        )
    speed = _speed(config, asked, shape, file)
    plan = TrainingPlan(config, cards, shape, moments(shape), speed, asked.limits, [])
    if plan.fits:
        return plan
    found = options(config, cards, asked.limits, speed)
    return TrainingPlan(config, cards, shape, plan.moments, speed, asked.limits, found)


def _speed(
    config: PretrainConfig, asked: TrainingQuestion, shape: TrainingShape, file: RatesFile | None
) -> Speed | None:
    """The rate of what was asked for, or else of this training so far."""
    if asked.like is not None:
        return speed_like(asked.like, shape)
    if asked.measure:
        from pipelines.plan.training.measure import measured_speed  # the trainer, for steps that are timed

        return measured_speed(config, shape)
    if (speed := own_speed(config, shape)) is not None or file is None:
        return speed
    return published_speed(file, str(asked.rates), shape)


def _cards(config: PretrainConfig, asked: TrainingQuestion) -> Cards:
    """One rank a card. A device that is not named is a GPU, which this machine need not have.

    What is measured here is planned for this machine.
    """
    parallel = config.parallel
    is_here = not asked.measure or torch.cuda.is_available()
    device: Device = "cuda" if parallel.device != "cpu" and is_here else "cpu"
    dtype = parallel.dtype
    if dtype == "auto":
        dtype = "bf16" if device == "cuda" or has_bf16() else "fp32"
    return Cards(asked.num_cards or parallel.processes, device, dtype)
