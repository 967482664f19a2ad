"""One iteration: the teacher's targets, every student's gradient in one piece or several, and a step down it.

With `accumulate` the batch of this process is worked through in micro-batches, of which one at a time has its
activations in memory, and the gradient is that of the whole batch. What that costs: the teacher's heads are
applied anew where their scores are needed (see `pretrain.targets`), and KoLeo over the batch wants the class
tokens of all micro-batches before the first of them is differentiated, which is one more forward of the
student. What the whole batch cannot be had for: stochastic depth draws its images within each micro-batch, as
it does within each rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pretrain.anchor import Anchor
from pretrain.data.augment import normalise
from pretrain.data.loader import CropBatch, seed_of
from pretrain.feature_targets import FeaturesConfig, FeatureTargets, TeacherFeatures, feature_losses
from pretrain.learner import Learner
from pretrain.loss.group import Group
from pretrain.model.batch_norm import uncounted
from pretrain.model.network import Scores
from pretrain.normalisation import IMAGENET, Normalisation
from pretrain.objective import Anchoring, Batch, Known, Losses, ObjectiveConfig, koleo_of, student_losses
from pretrain.parallel import Place, Placed
from pretrain.schedules import ScheduleConfig, Scheduled, scheduled
from pretrain.targets import Centres, Targets

_STEP_SEED = 3  # apart from those of the data and of the model


@dataclass
class State:
    """What moves as a training goes on.

    Attributes:
        learners: the students, one in pretraining.
        teacher: what makes the targets: the mean of the only student, or one that is frozen.
        centres: of the teacher's scores.
        step: iterations done.
        first_step, first_image: where this training began: its step, and its place in the data's order.
        parent: the checkpoint that it began with: path, step, SHA-256; None for one that began at random.
        anchor: the Gram teacher; None for a training without.
    """

    learners: list[Learner]
    teacher: Placed
    centres: Centres
    step: int = 0
    first_step: int = 0
    first_image: int = 0
    parent: dict[str, Any] | None = None
    anchor: Anchor | None = None


@dataclass(frozen=True)
class StepPlan:
    """What every iteration does alike.

    Attributes:
        seed: of everything random.
        batch_images: over all ranks.
        objective: the constants of what is minimised.
        schedule: of the teacher's temperature.
        accumulate: micro-batches of a step.
        masks_student: whether students see mask tokens; in distillation they do not.
        grid: rows and columns of the teacher's patches; None: those of every student.
        features: how the features of a teacher without heads are learned; None: its heads make the targets.
        normalisation: of the crops.
    """

    seed: int
    batch_images: int
    objective: ObjectiveConfig
    schedule: ScheduleConfig
    accumulate: int = 1
    masks_student: bool = True
    grid: tuple[int, int] | None = None
    features: FeaturesConfig | None = None
    normalisation: Normalisation = IMAGENET


@dataclass
class StepOutcome:
    """What happened in a step.

    Attributes:
        records: for each student, for the log: every term of the loss as it was minimised, its total,
            gradient norms, and the scheduled values.
        num_unreadable: images in whose place others were taken, over all ranks.
        is_stopping: whether any rank was asked to stop.
    """

    records: list[dict[str, Any]]
    num_unreadable: int
    is_stopping: bool


@dataclass
class LossSums:
    """The terms of a student's losses on this rank, added up over the micro-batches, the total last."""

    names: tuple[str, ...] = ()
    terms: list[Float[Tensor, "terms"]] = field(default_factory=list)

    def add(self, losses: Losses) -> None:
        """Take in a micro-batch."""
        self.names = (*losses.terms, "loss")
        self.terms.append(torch.stack([*losses.terms.values(), losses.total]).detach().float())

    def mean(self) -> Float[Tensor, "terms"]:
        """Over the micro-batches: what they are on the whole part of this rank."""
        return torch.stack(self.terms).mean(dim=0)


def train_step(
    state: State, crops: CropBatch, plan: StepPlan, where: Place, *, is_asked_to_stop: bool = False
) -> StepOutcome:
    """Move every student down its gradient and its mean after it, if all of its losses are finite."""
    values = [
        scheduled(state.step, learner.schedule, batch_images=plan.batch_images) for learner in state.learners
    ]
    for learner, now in zip(state.learners, values, strict=True):
        learner.follow(now)
    sums, centres = leave_gradients(state, crops, plan, where)
    norms = [learner.clipped_norms() for learner in state.learners]
    counts = torch.tensor([float(crops.num_unreadable), float(is_asked_to_stop)], device=where.device)
    means = where.group.sum(torch.cat([*(part.mean() for part in sums), counts])) / where.group.size
    *terms, unreadable, stopping = means.tolist()
    records = []
    for part, now, norm in zip(sums, values, norms, strict=True):
        own, terms = terms[: len(part.names)], terms[len(part.names) :]
        record = _record(state.step + 1, dict(zip(part.names, own, strict=True)), norm, now)
        if state.anchor is not None:
            record["gram_weight"] = state.anchor.weight(state.step)
        records.append(record)
    _go_on(state, centres, records, values, group=where.group)
    return StepOutcome(records, round(unreadable * where.group.size), stopping > 0)


def leave_gradients(
    state: State, crops: CropBatch, plan: StepPlan, where: Place
) -> tuple[list[LossSums], Centres]:
    """Leave with every student its gradients on the whole batch.

    Returns:
        The terms of each student's losses, and the centres for the next step.
    """
    for placed in (*(learner.student for learner in state.learners), state.teacher):
        placed.refresh()
    if state.anchor is not None:
        state.anchor.follow(state.step, state.teacher)
    parts = split_batch(crops, plan.accumulate)
    targets = _targets(state, parts, plan, where)
    known = [_known_spreads(learner, parts, plan, state.step, where) for learner in state.learners]
    sums = [LossSums() for _ in state.learners]
    for number, part in enumerate(parts):
        batch, wanted = to_batch(part, where, plan.normalisation), targets.of(number)
        anchoring = _anchoring(state, part, batch, plan.normalisation, where)
        for learner, spreads, found in zip(state.learners, known, sums, strict=True):
            _draw_from(plan, state.step, number, where)
            losses = _losses(learner, batch, wanted, plan, where, koleo=spreads[number], anchoring=anchoring)
            (losses.total / len(parts)).backward()
            learner.student.take_gradients()
            found.add(losses)
    return sums, targets.centres


def _targets(
    state: State, parts: Sequence[CropBatch], plan: StepPlan, where: Place
) -> Targets | FeatureTargets:
    """What the teacher says of the batch: for all students together, once."""
    batches = (to_batch(part, where, plan.normalisation) for part in parts)
    if plan.features is not None:
        return FeatureTargets(state.teacher.working, batches, state.centres)
    return Targets(
        state.teacher.working,
        batches,
        state.centres,
        plan.objective,
        temperature=scheduled(state.step, plan.schedule).teacher_temperature,
        group=where.group,
    )


def _losses(
    learner: Learner,
    batch: Batch,
    wanted: Scores | TeacherFeatures,
    plan: StepPlan,
    where: Place,
    *,
    koleo: Known | None,
    anchoring: Anchoring | None,
) -> Losses:
    if isinstance(wanted, TeacherFeatures):
        assert plan.features is not None
        masks = batch.masks if plan.masks_student else None
        return feature_losses(learner.student.working, batch.globals_, wanted, plan.features, masks=masks)
    return student_losses(
        learner.student.working,
        batch,
        wanted,
        plan.objective,
        group=where.group,
        masks_student=plan.masks_student,
        koleo=koleo,
        anchoring=anchoring,
        grid=plan.grid,
    )


def _anchoring(
    state: State, crops: CropBatch, batch: Batch, normalisation: Normalisation, where: Place
) -> Anchoring | None:
    """What the Gram teacher holds a piece to: it sees the crops meant for it, or else the student's."""
    if state.anchor is None or not state.anchor.weight(state.step):
        return None
    seen = batch.globals_ if crops.gram is None else _numbers(crops.gram, normalisation, where)
    return state.anchor.on(seen, batch.globals_, step=state.step)


@torch.no_grad()
def _known_spreads(
    learner: Learner, parts: Sequence[CropBatch], plan: StepPlan, step: int, where: Place
) -> Sequence[Known | None]:
    """KoLeo over all micro-batches; None for each where it is a matter of one alone."""
    objective = plan.objective
    has_koleo = plan.features is None and objective.koleo_weight
    if len(parts) == 1 or objective.koleo_over == "rank" or not has_koleo:
        return [None] * len(parts)
    tokens = []
    for number, part in enumerate(parts):
        batch = to_batch(part, where, plan.normalisation)
        masks = batch.masks if plan.masks_student else None
        _draw_from(plan, step, number, where)
        # The local crops go along: stochastic depth draws for both in turn, and shall draw the same again.
        with uncounted(learner.student.working):
            [views, _] = learner.student.working.backbone([batch.globals_, batch.locals_], [masks, None])
        tokens.append(views.cls.clone())  # a view would keep every token of its piece
    return koleo_of(tokens, objective, group=where.group)


def _draw_from(plan: StepPlan, step: int, number: int, where: Place) -> None:
    """Stochastic depth draws from torch's own generator: its state would be one more thing to save.

    A micro-batch of one rank draws what a rank draws that has this micro-batch alone.
    """
    torch.manual_seed(seed_of(plan.seed, _STEP_SEED, step, where.group.rank * plan.accumulate + number))


def _record(
    step: int, terms: dict[str, float], norms: dict[str, Tensor], values: Scheduled
) -> dict[str, Any]:
    named = {f"grad_norm_{name}": norm.item() for name, norm in norms.items()}
    is_finite = bool(np.isfinite([*terms.values(), *named.values()]).all())
    loss = terms.pop("loss")
    return {"step": step, "loss": loss, **terms, **named, **values._asdict(), "skipped": not is_finite}


def _go_on(
    state: State,
    centres: Centres,
    records: Sequence[dict[str, Any]],
    values: Sequence[Scheduled],
    *,
    group: Group,
) -> None:
    """Move the students and the centres, where all is finite; the step is over, whatever it was."""
    for learner, record, now in zip(state.learners, records, values, strict=True):
        learner.move(momentum=now.momentum, is_finite=not record["skipped"], group=group)
    if not all(record["skipped"] for record in records):
        state.centres = centres
    state.step += 1


def split_batch(crops: CropBatch, num_parts: int) -> list[CropBatch]:
    """A rank's crops in equal parts, each of some of its images with all their crops.

    Args:
        crops: of a multiple of `num_parts` images.
        num_parts: micro-batches.
    """
    if num_parts == 1:
        return [crops]
    num_images = len(crops.rows)
    each = num_images // num_parts

    def of_images(tensor: Tensor, first: int) -> Tensor:
        # Not -1 for the crops: there may be no local ones.
        by_crop = tensor.unflatten(0, (len(tensor) // num_images, num_images))
        part: Tensor = by_crop[:, first : first + each].flatten(0, 1)
        return part

    def images_from(first: int) -> CropBatch:
        cut = (of_images(x, first) if isinstance(x, Tensor) else x for x in crops)
        return CropBatch(*cut)  # type: ignore[arg-type]  # each in its own place

    return [images_from(number * each) for number in range(num_parts)]


def to_batch(crops: CropBatch, where: Place, normalisation: Normalisation = IMAGENET) -> Batch:
    """Crops as normalised numbers on this rank's device."""
    globals_, locals_ = (_numbers(part, normalisation, where) for part in (crops.globals_, crops.locals_))
    return Batch(globals_, locals_, crops.masks.to(where.device, non_blocking=True))


def _numbers(levels: Tensor, normalisation: Normalisation, where: Place) -> Tensor:
    # RGB is moved as bytes: a quarter of what the normalised crops take.
    moved = levels.to(where.device, non_blocking=True)
    return normalise(moved, normalisation.mean, normalisation.std, dtype=where.dtype)
