"""What changes as training goes on, as pure functions of the iteration."""

import math
from dataclasses import dataclass
from typing import NamedTuple


def cosine(iteration: int, start: float, end: float, *, total: int, warmup: int = 0, warmup_start: float = 0.0) -> float:
    """Linear from `warmup_start` to `start` over the first iterations, then a half cosine to `end`.

    The warm-up takes in both of its ends, so that iteration `warmup` − 1 has `start`, and so has the next one.

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


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """Where every scheduled value starts and ends; lengths in iterations.

    Attributes:
        total: iterations of the training.
        lr, min_lr, lr_warmup: peak learning rate, its end, and the length of its linear start from 0.
        freeze_last_layer: iterations in which the heads' last layers do not learn.
        weight_decay, weight_decay_end: a half cosine from the one to the other.
        momentum, momentum_end: likewise, of the teacher.
        teacher_temperature, teacher_temperature_start, teacher_temperature_warmup: linear, then constant.
    """

    total: int
    lr: float
    min_lr: float = 1e-6
    lr_warmup: int = 0
    freeze_last_layer: int = 0
    weight_decay: float = 0.04
    weight_decay_end: float = 0.4
    momentum: float = 0.992
    momentum_end: float = 1.0
    teacher_temperature: float = 0.07
    teacher_temperature_start: float = 0.04
    teacher_temperature_warmup: int = 0


class Scheduled(NamedTuple):
    """The values of one iteration."""

    lr: float
    last_layer_lr: float
    weight_decay: float
    momentum: float
    teacher_temperature: float


def scheduled(iteration: int, config: ScheduleConfig) -> Scheduled:
    """The values of iteration `iteration`, counted from 0.

    Source: arXiv:2304.07193, appendix B; the shapes are those of the official code.
    """
    lr = cosine(iteration, config.lr, config.min_lr, total=config.total, warmup=config.lr_warmup)
    warmup = config.teacher_temperature_warmup
    return Scheduled(
        lr=lr,
        last_layer_lr=0.0 if iteration < config.freeze_last_layer else lr,
        weight_decay=cosine(iteration, config.weight_decay, config.weight_decay_end, total=config.total),
        momentum=cosine(iteration, config.momentum, config.momentum_end, total=config.total),
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
