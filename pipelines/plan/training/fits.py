"""Which trainings fit a card's memory and a deadline: other sizes, batches, and ways to work through one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

from pipelines.plan.training.shapes import Cards, changed, shape_of
from pipelines.plan.training.speed import Speed
from pretrain.config import PretrainConfig
from pretrain.cost.memory import peak
from pretrain.cost.shape import TrainingShape
from pretrain.cost.work import image_flops
from pretrain.model.vit import Arch, variant

# Left for what is not counted: what the driver holds, and gaps between what the allocator gives.
RESERVED = 0.1
SMALLEST_BATCH_SHARE = 16
_MADE_FOR_TESTS = ("vit_micro", "vit_tiny")


@dataclass(frozen=True)
class Limits:
    """What a training must fit; None: whatever it takes."""

    memory_bytes: float | None = None  # of one card
    deadline_s: float | None = None

    def has_room(self, num_bytes: int) -> bool:
        """Whether so much fits a card, with what is left for the rest."""
        return self.memory_bytes is None or num_bytes <= (1 - RESERVED) * self.memory_bytes

    def has_time(self, seconds: float | None) -> bool:
        """Whether it is done by then; what nobody knows the rate of is not held to it."""
        return self.deadline_s is None or seconds is None or seconds <= self.deadline_s


@dataclass(frozen=True)
class Option:
    """A training that fits, and the settings that make it of the one that was asked about."""

    arch: str
    batch_images: int
    accumulate: int
    checkpoint_activations: bool
    peak_bytes: int
    step_flops: float  # of all cards
    seconds: float | None
    settings: Mapping[str, str]

    @property
    def flags(self) -> str:
        """As they are given to `lvd pretrain`; empty where nothing is to be set."""
        return " ".join(f"--set {name}={value}" for name, value in self.settings.items())


def options(config: PretrainConfig, cards: Cards, limits: Limits, speed: Speed | None) -> list[Option]:
    """What fits, best first: the size and the batch that were asked for, then larger sizes before smaller
    ones and larger batches before smaller ones; of two ways to train the same, the faster one.

    Args:
        config: of the training that was asked about.
        cards: that it runs on.
        limits: to fit.
        speed: of the training as it was asked about; None: not known.
    """
    asked = image_flops(shape_of(config, cards))
    found = []
    for one in _smallest_cuts(config, cards, limits):
        shape = shape_of(one, cards)
        flops = image_flops(shape)
        option = Option(
            str(one.model.arch),
            one.batch_images,
            one.accumulate,
            one.parallel.checkpoint_activations,
            peak(shape).num_bytes,
            flops * one.batch_images,
            training_s(shape, speed and speed.scaled(flops / asked)),
            _settings(config, one),
        )
        if limits.has_time(option.seconds):
            found.append(option)
    return sorted(found, key=lambda option: _rank(option, config))


def training_s(shape: TrainingShape, speed: Speed | None) -> float | None:
    """Seconds of what is left of a training; None where no rate is known."""
    if speed is None:
        return None
    return max(0, shape.iterations - speed.num_done) * speed.of_step(shape.rank_images)


def _smallest_cuts(config: PretrainConfig, cards: Cards, limits: Limits) -> Iterator[PretrainConfig]:
    """Of every size and batch, with and without checkpointing, the fewest micro-batches that have room."""
    for arch in _archs(config):
        for batch in _batches(config, cards):
            for checkpoint in (False, True):
                for accumulate in _divisors(batch // cards.num):
                    one = changed(
                        config,
                        model__arch=arch,
                        batch_images=batch,
                        accumulate=accumulate,
                        parallel__checkpoint_activations=checkpoint,
                    )
                    if limits.has_room(peak(shape_of(one, cards)).num_bytes):
                        yield one
                        break


def _archs(config: PretrainConfig) -> list[str]:
    """The size that was asked for, and the others where it is one of the family as it comes."""
    own = str(config.model.arch)
    if own not in get_args(Arch) or config.model.depth or config.model.weights:
        return [own]
    return [own, *(arch for arch in get_args(Arch) if arch not in (own, *_MADE_FOR_TESTS))]


def _batches(config: PretrainConfig, cards: Cards) -> Iterator[int]:
    """The batch that was asked for, and halves of it that the ranks can share."""
    batch = config.batch_images
    while batch >= max(1, config.batch_images // SMALLEST_BATCH_SHARE):
        if batch % cards.num == 0 and batch >= cards.num:
            yield batch
        if batch % 2:
            return
        batch //= 2


def _divisors(number: int) -> Iterator[int]:
    return (divisor for divisor in range(1, number + 1) if number % divisor == 0)


def _settings(asked: PretrainConfig, one: PretrainConfig) -> dict[str, str]:
    """What differs, by field."""
    pairs = {
        "model.arch": (asked.model.arch, one.model.arch),
        "batch_images": (asked.batch_images, one.batch_images),
        "accumulate": (asked.accumulate, one.accumulate),
        "parallel.checkpoint_activations": (
            asked.parallel.checkpoint_activations, one.parallel.checkpoint_activations,
        ),
    }  # fmt: skip
    return {name: str(new).lower() for name, (old, new) in pairs.items() if old != new}


def _rank(option: Option, asked: PretrainConfig) -> tuple[float, ...]:
    is_other = option.arch != asked.model.arch
    size = -float(variant(option.arch).dim) if is_other else 0.0  # type: ignore[arg-type]
    return (is_other, size, -option.batch_images, option.step_flops, option.accumulate)
