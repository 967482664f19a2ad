"""What changes as training goes on, as pure functions of the iteration."""

import math
from typing import NamedTuple

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


class ScheduleConfig(BaseModel):
    """Where every scheduled value starts and ends. Lengths are in iterations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iterations: int = Field(ge=1, description="of the whole training")
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
    weight_decay: float = Field(0.04, ge=0, description="at the start")
    weight_decay_end: float = Field(0.4, ge=0, description="at the end of a half cosine")
    momentum: float = Field(0.992, ge=0, le=1, description="of the teacher, at the start")
    momentum_end: float = Field(1.0, ge=0, le=1, description="at the end of a half cosine")
    teacher_temperature: float = Field(0.07, gt=0, description="after its warm-up")
    teacher_temperature_start: float = Field(0.04, gt=0, description="where its warm-up begins")
    teacher_temperature_warmup: int = Field(0, ge=0, description="iterations of its linear warm-up")

    @model_validator(mode="after")
    def _warmups_end(self) -> "ScheduleConfig":
        for name in ("lr_warmup", "freeze_last_layer", "teacher_temperature_warmup"):
            if getattr(self, name) > self.iterations:
                raise ValueError(f"{name} is longer than the training of {self.iterations} iterations")
        return self


class Scheduled(NamedTuple):
    """The values of one iteration."""

    lr: float
    last_layer_lr: float
    weight_decay: float
    momentum: float
    teacher_temperature: float


def scheduled(iteration: int, config: ScheduleConfig, *, batch_images: int = 1024) -> Scheduled:
    """The values of iteration `iteration`, counted from 0, for a global batch of so many images.

    Source: arXiv:2304.07193, appendix B; the shapes are those of the official code.
    """
    peak = scaled_lr(config.base_lr, batch_images=batch_images)
    total = config.iterations
    lr = cosine(iteration, peak, config.min_lr, total=total, warmup=config.lr_warmup)
    warmup = config.teacher_temperature_warmup
    return Scheduled(
        lr=lr,
        last_layer_lr=0.0 if iteration < config.freeze_last_layer else lr,
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


def scaled_lr(base_lr: float, *, batch_images: int) -> float:
    """The learning rate for a batch: base · √(images / 1024).

    Source: arXiv:2304.07193, appendix B; the rule is the official `sqrt_wrt_1024`.
    """
    return base_lr * math.sqrt(batch_images / 1024)
