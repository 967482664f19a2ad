"""What one of many ranks computes, for the tests that compare it with a lone process."""

import hashlib
import json
import os
from typing import Any

import torch
from tiny import drawn_batch, share_of, tiny_config
from torch import Tensor

from curation.errors import LvdError
from pretrain import distill, learner, loop, train
from pretrain.config import PretrainConfig
from pretrain.data.loader import CropBatch
from pretrain.distill_config import DistillConfig
from pretrain.loss.group import Alone
from pretrain.loss.koleo import koleo_loss
from pretrain.loss.sinkhorn import moved_centre, sinkhorn_knopp
from pretrain.objective import student_losses
from pretrain.optimizer import clip_gradients
from pretrain.parallel import Place, Processes, assign, full, place
from pretrain.targets import teacher_targets
from pretrain.teacher import load_teacher
from pretrain.train import build, plan_of
from pretrain.train_step import State, StepOutcome, leave_gradients, to_batch, train_step

NUM_IMAGES = 8


def roughened(config: PretrainConfig, where: Place) -> State:
    """A student and a teacher that differ everywhere; nothing is zero."""
    state = build(config, where)
    for seed, placed in enumerate((state.learners[0].student, state.teacher)):
        rng = torch.Generator().manual_seed(seed)
        for parameter in placed.network.parameters():
            whole = full(parameter)
            assign(parameter, whole + 0.05 * torch.randn(whole.shape, generator=rng))
    return state


def backward_job(config: PretrainConfig) -> dict[str, Any]:
    """Losses and gradients of the first step on this rank's part of the batch, and their norms."""
    with place(config.parallel) as where:
        state = roughened(config, where)
        crops = share_of(drawn_batch(NUM_IMAGES), where.group.rank, where.group.size)
        [sums], centres = leave_gradients(state, crops, plan_of(config), where)
        student = state.learners[0].student.network
        gradients = {n: full(p.grad).clone() for n, p in student.named_parameters()}
        norms = clip_gradients(student, limit=0.01)
        return {
            "gradients": gradients,
            "clipped": {n: full(p.grad) for n, p in student.named_parameters()},
            "norms": {name: norm.item() for name, norm in norms.items()},
            "losses": sums.mean()[:-1],
            "centres": list(centres),
        }


def distilled_gradients_job(config: DistillConfig) -> dict[str, Tensor]:
    """Gradients of every student in the first step of a distillation, on this rank's part of the batch."""
    with place(config.parallel) as where:
        teacher = load_teacher(config.teacher, where, warn=print)
        state = distill.build(config, teacher, where)
        crops = share_of(drawn_batch(NUM_IMAGES), where.group.rank, where.group.size)
        leave_gradients(state, crops, distill.plan_of(config, teacher), where)
        return {
            f"{learner.folder.name}.{name}": full(parameter.grad).clone()
            for learner in state.learners
            for name, parameter in learner.student.network.named_parameters()
            if parameter.grad is not None
        }


def backward_job_of_part(config: PretrainConfig, rank: int, size: int) -> dict[str, Any]:
    """The KoLeo term of one part of the batch, with nobody else there."""
    with place(config.parallel) as where:
        state = roughened(config, where)
        batch = to_batch(share_of(drawn_batch(NUM_IMAGES), rank, size), where)
        targets, _ = teacher_targets(
            state.teacher.working, batch, state.centres, config.objective, temperature=0.07, group=Alone()
        )
        losses = student_losses(
            state.learners[0].student.working, batch, targets, config.objective, group=Alone()
        )
        return {"losses": torch.stack(list(losses.terms.values())).detach()}


def steps_job(config: PretrainConfig, num_steps: int) -> dict[str, Any]:
    """Some steps: what each says, and the student and teacher after them."""
    with place(config.parallel) as where:
        state = roughened(config, where)
        before = {n: full(p).clone() for n, p in state.teacher.network.named_parameters()}
        records = []
        for step in range(num_steps):
            batch = drawn_batch(NUM_IMAGES, seed=step, step=step)
            part = share_of(batch, where.group.rank, where.group.size)
            records += train_step(state, part, plan_of(config), where).records
        return {
            "records": records,
            "before": before,
            "student": {n: full(p).clone() for n, p in state.learners[0].student.network.named_parameters()},
            "teacher": {n: full(p).clone() for n, p in state.teacher.network.named_parameters()},
        }


def compiled_job(config: PretrainConfig) -> dict[str, Any]:
    from torch._dynamo.utils import counters

    records = steps_job(config, 2)["records"]
    return {"losses": [r["loss"] for r in records], "num_graphs": counters["stats"]["unique_graphs"]}


def logits_of(size: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(3)
    return torch.randn(12 * size, 20, generator=rng), torch.randn(12 * size, 6, generator=rng)


def group_job(lengths: list[int]) -> dict[str, Any]:
    """What the losses ask of a group, on rows of which each rank has so many."""
    config = tiny_config()
    with place(config.parallel) as where:
        group = where.group
        assert isinstance(group, Processes)
        logits, features = logits_of(len(lengths))
        rows = logits.split(lengths)[group.rank]
        own = features.chunk(group.size)[group.rank].clone().requires_grad_()
        gathered = group.gather(own)
        weights = torch.arange(gathered.numel()).view_as(gathered) * (group.rank + 1.0)
        [gather_grad] = torch.autograd.grad((gathered * weights).sum(), own)
        koleo = koleo_loss(own, group=group)
        [koleo_grad] = torch.autograd.grad(koleo, own)
        return {
            "sinkhorn": sinkhorn_knopp(rows, temperature=0.3, group=group),
            "centre": moved_centre(torch.ones(20), [rows], momentum=0.9, group=group),
            "gathered": gathered.detach(),
            "gather_grad": gather_grad,
            "koleo": koleo.detach(),
            "koleo_grad": koleo_grad,
        }


def sharded_job(config: PretrainConfig) -> dict[str, float]:
    """The share of the student's parameters that a rank holds."""
    with place(config.parallel) as where:
        state = build(config, where)
        parameters = list(state.learners[0].student.network.parameters())
        held = sum(p.to_local().numel() for p in parameters)
        return {"share": held / sum(p.numel() for p in parameters)}


def failing_job() -> None:
    with place(tiny_config().parallel) as where:
        if where.group.rank == 1:
            raise ValueError("on purpose")
        where.group.sum(torch.zeros(1))


def train_job(
    config: PretrainConfig | DistillConfig, notes: str, fatal: dict[int, tuple[int, int]] | None = None
) -> str:
    """Train or distil, and note for each step which images were seen, and the digest of their crops.

    Args:
        config: of the training.
        notes: a file; the rank's number is added to its name.
        fatal: for a rank, the step in the middle of which it gets a signal, and that signal.

    Returns:
        The last checkpoint's folder, or that of each student by name, or the error's text.
    """
    rank = int(os.environ["RANK"])
    step_of, move = loop.train_step, learner.move_teacher
    at_step = 0

    def noting(state: State, crops: CropBatch, *rest: Any, **options: Any) -> StepOutcome:
        nonlocal at_step
        at_step = crops.step + 1
        digest = hashlib.sha256(crops.globals_.numpy().tobytes() + crops.locals_.numpy().tobytes())
        digest.update(crops.masks.numpy().tobytes())
        with open(f"{notes}-{rank}", "a") as out:
            out.write(json.dumps([at_step, crops.rows.tolist(), digest.hexdigest()]) + "\n")
        return step_of(state, crops, *rest, **options)

    def moving(*arguments: Any, **options: Any) -> None:
        step, number = (fatal or {}).get(rank, (0, 0))
        if at_step == step:
            os.kill(os.getpid(), number)
        move(*arguments, **options)

    loop.train_step, learner.move_teacher = noting, moving
    try:
        if isinstance(config, DistillConfig):
            return str(distill.distill(config, quiet=True))
        return str(train.train(config, quiet=True))
    except LvdError as error:
        return f"{type(error).__name__}: {error}"
