"""A student that is trained: where its networks are, how it is optimised, and the mean of what it was."""

from dataclasses import dataclass
from pathlib import Path

import torch

from pretrain.loss.group import Group
from pretrain.model.network import Network
from pretrain.optimizer import OptimizerConfig, apply_schedule, build_adamw, clip_gradients, move_teacher
from pretrain.parallel import ParallelConfig, Place, Placed
from pretrain.schedules import ScheduleConfig, Scheduled


@dataclass
class Learner:
    """One student with all that moves as it learns.

    Attributes:
        folder: its run directory: where its checkpoints and its metrics lie.
        student: what is optimised.
        mean: the exponential mean of the student, which is the result; in pretraining it is also the teacher.
        optimizer: of the student.
        schedule: of its optimiser and of its mean.
        clip: largest gradient norm of the backbone and of each head; 0: none.
        num_skipped: steps in a row, up to now, without a finite loss and gradient.
    """

    folder: Path
    student: Placed
    mean: Placed
    optimizer: torch.optim.AdamW
    schedule: ScheduleConfig
    clip: float
    num_skipped: int = 0

    def clipped_norms(self) -> dict[str, torch.Tensor]:
        """Clip the gradients; the norm of each part of the network before that."""
        return clip_gradients(self.student.network, limit=self.clip)

    def follow(self, values: Scheduled) -> None:
        """Set the learning rate and weight decay of this iteration."""
        apply_schedule(self.optimizer, values)

    def move(self, *, momentum: float, is_finite: bool, group: Group) -> None:
        """Take the step that the gradients say, if all is finite; they are gone, whatever they were."""
        self.student.settle_statistics(group, is_finite=is_finite)
        if is_finite:
            self.optimizer.step()
            move_teacher(self.mean.network, self.student.network, momentum=momentum)
        self.optimizer.zero_grad()
        self.num_skipped = 0 if is_finite else self.num_skipped + 1


def new_learner(
    student: Network,
    mean: Network,
    where: Place,
    *,
    folder: Path,
    schedule: ScheduleConfig,
    optimizer: OptimizerConfig,
    parallel: ParallelConfig,
) -> Learner:
    """Place a student and its mean, and make its optimiser.

    Args:
        student: the network to train.
        mean: one of the same shape without stochastic depth; it becomes a copy of the student.
        where: this rank's place.
        folder: its run directory.
        schedule, optimizer, parallel: their configs.
    """
    mean.load_state_dict(student.state_dict())
    mean.requires_grad_(False)
    placed = Placed(student.train(), where, parallel)
    adamw = build_adamw(
        placed.network.named_parameters(), depth=student.backbone.config.depth, config=optimizer
    )
    return Learner(folder, placed, Placed(mean.eval(), where, parallel), adamw, schedule, optimizer.clip)
