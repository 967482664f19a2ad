"""What changes as training goes on, as pure functions of the iteration."""

import math
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator


def cosine(
    iteration: int, start: float, end: float, *, total: int, warmup: int = 0, warmup_start: float = 0.0
) -> float:
    """Linear from `warmup_start` to `start` over the first iterations, then a half cosine to `end`.

    The warm-up takes in both of its ends: iteration `warmup` − 1 has `start`, and so has the next one.

    Args:
        iteration: from 0; from `total` on the value stays at `end`.
        start: where the cosine begins.
        end: where it ends; `total` is the first iteration that has it.
        total: iterations in all.
        warmup: of them, those of the linear part.
        warmup_start: where the linear part begins.
    """
    if iteration >= total:
        return end
    if iteration < warmup:
        share = iteration / (warmup - 1) if warmup > 1 else 0.0
        return warmup_start + (start - warmup_start) * share
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * (iteration - warmup) / (total - warmup)))


class TailConfig(BaseModel):
    """Another end: what a training does from some iteration on, instead of what was planned for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: int = Field(ge=0, description="iteration from which it takes over: of the end, or of any before it")
    iterations: int = Field(ge=1, description="from there to the end")
    base_lr: float | None = Field(
        None,
        gt=0,
        description="learning rate to rise to, as schedule.base_lr; null: fall from where it is, a cool-down",
    )
    warmup: int = Field(0, ge=0, description="iterations in which it rises, linearly")
    shape: Literal["linear", "cosine"] = Field("linear", description="of the fall to min_lr")

    @model_validator(mode="after")
    def _rises_to_something(self) -> "TailConfig":
        if self.warmup and self.base_lr is None:
            raise ValueError(
                "warmup is the time in which the rate rises to base_lr; set that, or leave it out"
            )
        if self.warmup >= self.iterations:
            raise ValueError(f"warmup {self.warmup} leaves nothing of {self.iterations} iterations")
        return self


class ScheduleConfig(BaseModel):
    """Where every scheduled value starts and ends. Lengths are in iterations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iterations: int = Field(ge=1, description="of the whole training, unless it has a tail")
    base_lr: float = Field(
        4e-3,
        gt=0,
        description="peak learning rate for a batch of 1,024 images; it goes with the batch's root",
    )
    min_lr: float = Field(1e-6, ge=0, description="where the learning rate ends")
    lr_warmup: int = Field(0, ge=0, description="iterations in which it rises from 0, linearly")
    freeze_last_layer: int = Field(
        0, ge=0, description="iterations in which the last layers of the heads do not learn"
    )
    freeze_backbone: int = Field(
        0,
        ge=0,
        description="iterations in which the heads alone learn, so that new ones spoil no trained backbone",
    )
    weight_decay: float = Field(0.04, ge=0, description="at the start")
    weight_decay_end: float = Field(0.4, ge=0, description="at the end of a half cosine")
    momentum: float = Field(0.992, ge=0, le=1, description="of the teacher, at the start")
    momentum_end: float = Field(1.0, ge=0, le=1, description="at the end of a half cosine")
    teacher_temperature: float = Field(0.07, gt=0, description="after its warm-up")
    teacher_temperature_start: float = Field(0.04, gt=0, description="where its warm-up begins")
    teacher_temperature_warmup: int = Field(0, ge=0, description="iterations of its linear warm-up")
    tail: TailConfig | None = Field(
        None,
        description="makes a training longer, or cools it down early, without changing what was done before",
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> "ScheduleConfig":
        for name in ("lr_warmup", "freeze_last_layer", "freeze_backbone", "teacher_temperature_warmup"):
            if getattr(self, name) > self.iterations:
                raise ValueError(f"{name} is longer than the training of {self.iterations} iterations")
        if self.tail and self.tail.at > self.iterations:
            raise ValueError(f"tail.at {self.tail.at} is after the end, iteration {self.iterations}")
        return self

    @property
    def total(self) -> int:
        """Iterations of the whole training, its tail included."""
        return self.iterations if self.tail is None else self.tail.at + self.tail.iterations


class Scheduled(NamedTuple):
    """The values of one iteration."""

    lr: float
    last_layer_lr: float
    backbone_lr: float
    weight_decay: float
    momentum: float
    teacher_temperature: float


def scheduled(iteration: int, config: ScheduleConfig, *, batch_images: int = 1024) -> Scheduled:
    """The values of iteration `iteration`, counted from 0, for a global batch of so many images.

    Source: arXiv:2304.07193, appendix B; the shapes are those of the official code.
    """
    tail = config.tail
    if tail is not None and iteration >= tail.at:
        return _in_tail(iteration, config, tail, batch_images=batch_images)
    return _planned(iteration, config, batch_images=batch_images)


def _planned(iteration: int, config: ScheduleConfig, *, batch_images: int) -> Scheduled:
    peak = scaled_lr(config.base_lr, batch_images=batch_images)
    total = config.iterations
    lr = cosine(iteration, peak, config.min_lr, total=total, warmup=config.lr_warmup)
    warmup = config.teacher_temperature_warmup
    return Scheduled(
        lr=lr,
        last_layer_lr=0.0 if iteration < config.freeze_last_layer else lr,
        backbone_lr=0.0 if iteration < config.freeze_backbone else lr,
        weight_decay=cosine(iteration, config.weight_decay, config.weight_decay_end, total=total),
        momentum=cosine(iteration, config.momentum, config.momentum_end, total=total),
        teacher_temperature=cosine(
            iteration,
            config.teacher_temperature,
            config.teacher_temperature,
            total=warmup,
            warmup=warmup,
            warmup_start=config.teacher_temperature_start,
        ),
    )


def _in_tail(iteration: int, config: ScheduleConfig, tail: TailConfig, *, batch_images: int) -> Scheduled:
    """From the values at which it takes over: weight decay stays, the momentum ends by a cosine."""
    taken_over = _planned(tail.at, config, batch_images=batch_images)
    done = iteration - tail.at
    peak = taken_over.lr if tail.base_lr is None else scaled_lr(tail.base_lr, batch_images=batch_images)
    if done < tail.warmup:
        lr = taken_over.lr + (peak - taken_over.lr) * done / tail.warmup
    else:
        share = min(1.0, (done - tail.warmup) / (tail.iterations - tail.warmup))
        lr = config.min_lr + (peak - config.min_lr) * _left(share, tail.shape)
    return taken_over._replace(
        lr=lr,
        last_layer_lr=0.0 if iteration < config.freeze_last_layer else lr,
        backbone_lr=0.0 if iteration < config.freeze_backbone else lr,
        momentum=cosine(done, taken_over.momentum, config.momentum_end, total=tail.iterations),
        teacher_temperature=_planned(iteration, config, batch_images=batch_images).teacher_temperature,
    )


def _left(share: float, shape: Literal["linear", "cosine"]) -> float:
    """What is left of a fall of which this share is over."""
    return 1 - share if shape == "linear" else 0.5 * (1 + math.cos(math.pi * share))


def scaled_lr(base_lr: float, *, batch_images: int) -> float:
    """The learning rate for a batch: base · √(images / 1024).

    Source: arXiv:2304.07193, appendix B; the rule is the official `sqrt_wrt_1024`.
    """
    return base_lr * math.sqrt(batch_images / 1024)
