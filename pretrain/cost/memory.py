"""The memory of one card in a training: what is always there, and what comes and goes within a step.

A step has few moments at which memory is highest; the peak is that of the highest. Of each the terms are
counted that are alive then, so that they add up. What the allocator wastes and what the driver holds for
itself is not counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pretrain.cost.saved import (
    FP32,
    backbone_bytes,
    block_backward_bytes,
    head_bytes,
    head_rows,
    look_bytes,
)
from pretrain.cost.shape import (
    NetworkShape,
    TrainingShape,
    backbone_parameters,
    block_parameters,
    head_parameters,
)

Term = Literal[
    "parameters", "moments of AdamW", "mean of the student", "teacher", "working copies",
    "gathered from ranks", "gradients", "activations of blocks", "activations of heads", "scores",
    "targets", "the teacher's look",
]  # fmt: skip
Name = Literal["the teacher's look", "the targets", "the losses", "the backward", "the update"]

# Rows that the cross-entropy works on at once (see `pretrain.loss.cross_entropy`).
_PIECE_ROWS = {"cpu": 32, "cuda": 2048}
# Of the last layer's weights while the gradient goes through their norm.
_NORM_COPIES = 3


@dataclass(frozen=True)
class Moment:
    """A moment of a step, and the bytes of one card that each term has then."""

    name: Name
    terms: Mapping[Term, int]

    @property
    def num_bytes(self) -> int:
        """In all."""
        return sum(self.terms.values())


def peak(shape: TrainingShape) -> Moment:
    """The moment at which a card is fullest."""
    return max(moments(shape), key=lambda moment: moment.num_bytes)


def moments(shape: TrainingShape) -> list[Moment]:
    """The moments of a step, in their order."""
    always = _always(shape)
    found = [_look(shape), _making_targets(shape)]
    for number in range(len(shape.students)):
        found += [_losses(shape, number), _backward(shape, number)]
    found.append(_update(shape))
    return [Moment(moment.name, {**always, **moment.terms}) for moment in found]


def _always(shape: TrainingShape) -> dict[Term, int]:
    """Parameters, moments and means are fp32, whatever the forward is, and sharded among the ranks."""
    trained = sum(student.num_parameters for student in shape.students)
    frozen = shape.teacher.num_parameters if shape.teacher else 0
    found: dict[Term, int] = {
        "parameters": FP32 * trained // shape.ranks,
        "moments of AdamW": 2 * FP32 * trained // shape.ranks,
        "mean of the student": FP32 * trained // shape.ranks,
    }
    if frozen:
        found["teacher"] = FP32 * frozen // shape.ranks
    if shape.has_working_copies:
        found["working copies"] = shape.dtype_bytes * (2 * trained + frozen)
    return found


def _look(shape: TrainingShape) -> Moment:
    teacher = shape.teaches
    terms: dict[Term, int] = {"the teacher's look": look_bytes(shape, teacher.backbone) + _seen(shape)}
    return Moment("the teacher's look", terms | _gathered(shape, teacher, holds_rest=False))


def _making_targets(shape: TrainingShape) -> Moment:
    """Scores are made, and weights of them in fp32, of which one more copy is divided by the temperature."""
    scores, targets = _teacher_scores(shape)
    terms: dict[Term, int] = {
        "scores": sum(scores) * shape.dtype_bytes,
        "targets": sum(targets) + (max(targets) if shape.dtype != "fp32" else 0) + _seen(shape),
    }
    return Moment("the targets", terms | _gathered(shape, shape.teaches, holds_rest=False))


def _losses(shape: TrainingShape, number: int) -> Moment:
    """All is there that the backward needs, and the gradients of the scores are made from it."""
    student = shape.students[number]
    rows, (cls, patches) = head_rows(shape), _prototypes(student)
    scores = rows[0] * cls + rows[1] * patches
    copies = 1 if shape.dtype == "fp32" else 2  # one is divided by the temperature, one made fp32 before
    piece = copies * min(max(rows), _PIECE_ROWS[shape.device]) * max(cls, patches) * FP32
    # Of the class tokens the targets of all locals, summed over both globals.
    summed = shape.piece_images * shape.locals_.num * cls * FP32
    terms = _of_backbone(shape, number)
    terms["scores"] = 2 * scores * shape.dtype_bytes + piece
    terms["targets"] = _held_targets(shape) + summed
    return Moment("the losses", terms)


def _backward(shape: TrainingShape, number: int) -> Moment:
    """The gradients of the scores go back into the heads, or the first of the blocks is differentiated."""
    student = shape.students[number]
    rows, (cls, patches) = head_rows(shape), _prototypes(student)
    # Scores are cut in slices; the gradient of each is laid into zeros of the whole before they are added.
    of_cls, all_scores = rows[0] * cls, rows[0] * cls + rows[1] * patches
    padded = of_cls + (2 if student.ibot_head is None else 1) * all_scores
    normed = max(head.prototypes * head.bottleneck_dim for head in student.own_heads)
    heads = shape.dtype_bytes * max(padded, all_scores + _NORM_COPIES * normed)
    made = _fresh(shape, student.head_parameters)
    blocks = block_backward_bytes(shape, student.backbone) + made
    terms = _of_backbone(shape, number)
    terms["targets"] = _held_targets(shape)
    if heads + terms["activations of heads"] >= blocks:
        terms["scores"] = heads
    else:
        terms["activations of heads"] = 0
        terms["activations of blocks"] += block_backward_bytes(shape, student.backbone)
        terms["gradients"] += made
    return Moment("the backward", terms)


def _update(shape: TrainingShape) -> Moment:
    """All gradients are there; the activations are not. Working copies hand theirs over one by one."""
    trained = sum(student.num_parameters for student in shape.students)
    largest = max(head.prototypes * head.bottleneck_dim for s in shape.students for head in s.own_heads)
    handed = shape.dtype_bytes * largest if shape.has_working_copies else 0
    kept = _held_targets(shape) + _seen(shape)
    terms: dict[Term, int] = {"gradients": FP32 * trained // shape.ranks + handed, "targets": kept}
    return Moment("the update", terms)


def _of_backbone(shape: TrainingShape, number: int) -> dict[Term, int]:
    """What a student has kept when its losses are there, with the gradients that were there before."""
    student = shape.students[number]
    before = shape.students if shape.accumulate > 1 else shape.students[:number]
    terms: dict[Term, int] = {
        "gradients": FP32 * sum(other.num_parameters for other in before) // shape.ranks,
        "activations of blocks": backbone_bytes(shape, student.backbone),
        "activations of heads": head_bytes(shape, student),
    }
    return terms | _gathered(shape, student, holds_rest=True)


def _gathered(shape: TrainingShape, network: NetworkShape, *, holds_rest: bool) -> dict[Term, int]:
    """Whole parameters of two blocks, of which one is fetched ahead; in training all but the blocks stay."""
    if shape.ranks == 1:
        return {}
    backbone = network.backbone
    block = block_parameters(backbone)
    rest = backbone_parameters(backbone) - backbone.depth * block
    held = 2 * block + max(map(head_parameters, network.own_heads))
    if holds_rest:
        held = 2 * block + rest + network.head_parameters
    return {"gathered from ranks": held * shape.dtype_bytes}


def _fresh(shape: TrainingShape, num: int) -> int:
    """Bytes of the gradients of so many parameters as they are made; among ranks each keeps fp32 shards."""
    return FP32 * num // shape.ranks if shape.ranks > 1 else shape.dtype_bytes * num


def _prototypes(network: NetworkShape) -> tuple[int, int]:
    return network.dino_head.prototypes, network.patch_head.prototypes


def _teacher_scores(shape: TrainingShape) -> tuple[Sequence[int], Sequence[int]]:
    """Numbers of the teacher's scores that are held at once, and bytes of the targets made of them."""
    images, (cls, patches) = shape.piece_images, _prototypes(shape.teaches)
    numbers = [images * shape.globals_.num * cls, shape.piece_masked * patches]
    if shape.accumulate > 1:  # of one head at a time
        return [max(numbers)], [FP32 * max(numbers)]
    return numbers, [FP32 * each for each in numbers]


def _held_targets(shape: TrainingShape) -> int:
    """Targets while a student learns from them; around a centre the scores of a lone piece stay with them."""
    images, (cls, patches) = shape.piece_images, _prototypes(shape.teaches)
    numbers = images * shape.globals_.num * cls + shape.piece_masked * patches
    kept = shape.dtype_bytes if shape.centring == "softmax" and shape.accumulate == 1 else 0
    return numbers * (FP32 + kept) + _seen(shape)


def _seen(shape: TrainingShape) -> int:
    """Features of all pieces, which the targets of each are made from."""
    if shape.accumulate == 1:
        return 0
    rows = shape.rank_images * shape.globals_.num + round(shape.rank_images * shape.masked_patches)
    return rows * shape.teaches.backbone.dim * shape.dtype_bytes
