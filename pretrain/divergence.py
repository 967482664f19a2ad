"""What is said when a training diverges: what was not finite, and what has not been tried yet."""

from collections.abc import Mapping
from typing import Any

import torch

from curation.errors import ExecutorError
from pretrain.checkpoint_files import STUDENTS
from pretrain.learner import Learner
from pretrain.parallel import Place

# A warm-up of this share of the training is long already: that of the published runs is 0.1 to 0.16.
LONG_WARMUP = 0.1
CLIP = 3.0  # of the published runs


def diverged(learner: Learner, record: Mapping[str, Any], where: Place) -> ExecutorError:
    """The error of a training that took no step for too long.

    Args:
        learner: the student.
        record: of the last step: the loss, its terms and the gradient norms.
        where: this rank's place.
    """
    shown = [name for name in record if name.startswith("grad_norm_")]
    terms = list(record)[1 : list(record).index(shown[0])]  # from the loss on, as they stand in the record
    numbers = ", ".join(f"{name} {record[name]:.4g}" for name in (*terms, *shown))
    return ExecutorError(
        f"{learner.num_skipped} steps in a row had no finite loss or gradient; none of them was taken",
        got=f"step {record['step']}: {numbers}",
        expected="finite numbers",
        remedy=_advice(learner, where) + _branching(learner),
    )


def _advice(learner: Learner, where: Place) -> str:
    """What may help, but for what is so already."""
    schedule = learner.schedule
    here = "" if where.dtype is torch.float32 else "Set parallel.dtype to fp32 and go on here. "
    lower = [f"a lower schedule.base_lr than {schedule.base_lr:g}"]
    if schedule.lr_warmup < LONG_WARMUP * schedule.total:
        warmup = f"{schedule.lr_warmup:,} of {schedule.total:,} iterations"
        lower.append(f"a longer schedule.lr_warmup than {warmup}")
    if not 0 < learner.clip <= CLIP:
        now = f"{learner.clip:g}" if learner.clip else "off"
        lower.append(f"optimizer.clip at {CLIP:g} ({now} now)")
    return f"{here}{'Or begin' if here else 'Begin'} anew in another run_dir with {' or '.join(lower)}"


def _branching(learner: Learner) -> str:
    """That a training may be branched before it went wrong; a student of a distillation may not."""
    if learner.folder.parent.name == STUDENTS:
        return ""
    return ". The checkpoints before are sound: lvd pretrain RUN_DIR/checkpoints/step-… branches from one"
