"""What is said as a training starts: how much there is to do, of what, and where."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pretrain.learner import Learner
from pretrain.parallel import Place
from pretrain.schedules import scaled_lr


@dataclass(frozen=True)
class Size:
    """How much a training is.

    Attributes:
        num_images: of the dataset; None where nobody knows, as of a stream.
        batch_images: over all ranks.
        accumulate: micro-batches of a step.
        first_step: iterations done.
        total: iterations of the whole training.
    """

    num_images: int | None
    batch_images: int
    accumulate: int
    first_step: int
    total: int


def start_line(learners: Sequence[Learner], size: Size, where: Place) -> str:
    """Images, epochs, parameters, device, precision, ranks, and the learning rate that the batch makes of it.

    Args:
        learners: the students, one in pretraining.
        size: of the training.
        where: this rank's place.
    """
    return "; ".join(
        [_work(size), *(_student(learner, size, num=len(learners)) for learner in learners), _place(where)]
    )


def _work(size: Size) -> str:
    steps = f"steps {size.first_step + 1:,} to {size.total:,} of {size.batch_images:,} images"
    if size.accumulate > 1:
        steps += f" in {size.accumulate} micro-batches"
    if size.num_images is None or size.num_images == sys.maxsize:
        return f"{steps}, of a dataset whose images nobody has counted"
    epochs = (size.total - size.first_step) * size.batch_images / size.num_images
    return f"{size.num_images:,} images, {steps}: {epochs:,.3g} epochs"


def _student(learner: Learner, size: Size, *, num: int) -> str:
    network = learner.student.network
    whole, backbone = _num_parameters(network), _num_parameters(network.backbone)
    peak = scaled_lr(learner.schedule.base_lr, batch_images=size.batch_images)
    name = f"{learner.folder.name}: " if num > 1 else ""
    return (
        f"{name}{_millions(backbone)} parameters, {_millions(whole)} with heads; "
        f"learning rate {peak:.3g} at its peak (base_lr {learner.schedule.base_lr:.3g})"
    )


def _place(where: Place) -> str:
    device = where.device.type
    if device == "cuda":
        device = torch.cuda.get_device_name(where.device)
    precision = {torch.float32: "fp32", torch.bfloat16: "bf16"}[where.dtype]
    ranks = "1 rank" if where.group.size == 1 else f"{where.group.size} ranks"
    return f"{device}, {precision}, {ranks}"


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _millions(number: int) -> str:
    return f"{number / 1e6:,.1f} M" if number >= 100_000 else f"{number:,}"
