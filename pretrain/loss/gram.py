"""Gram anchoring: the likenesses among a student's patches stay those of an earlier teacher."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pretrain.loss.group import Group
from pretrain.loss.patch_maps import resampled

Negatives = Literal["keep", "zero", "zero_teacher"]

# Similarities that exist at a time, fp32: 16 MB on the CPU, 1 GB on a GPU. Those among 64 crops of 256
# patches are 1 GB, and among 2,048 such crops 1 TB; autograd would keep them for each side.
_CPU_BLOCK, _GPU_BLOCK = 1 << 22, 1 << 28


class _SquaredGap(torch.autograd.Function):
    """Σ (R·Cᵀ − R'·C'ᵀ)² over groups, rows R and columns C, by blocks that are thrown away at once.

    With the derivative G of the sum by R·Cᵀ, the gradients are G·C and Gᵀ·R: made with the value, block by
    block, so that nothing larger than the features is kept for the backward.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, teacher: tuple[Tensor, Tensor], negatives: Negatives
    ) -> Tensor:
        total = rows.new_zeros(())
        grads = torch.zeros_like(rows), torch.zeros_like(columns)
        for some, part in _blocks(rows, columns):
            ours = rows[some, part] @ columns[some].mT
            gap, is_fixed = _gap(ours, teacher[0][some, part] @ teacher[1][some].mT, negatives)
            total += gap.square().sum()
            if any(ctx.needs_input_grad[:2]):
                slope = gap if is_fixed is None else gap.masked_fill_(is_fixed, 0)
                grads[0][some, part] = 2 * (slope @ columns[some])
                grads[1][some] += 2 * (slope.mT @ rows[some, part])
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        by_rows, by_columns = ctx.saved_tensors
        return grads[0] * by_rows, grads[0] * by_columns, None, None


def _blocks(rows: Tensor, columns: Tensor) -> Iterator[tuple[slice, slice]]:
    """Which groups, and which of their rows, make a block."""
    (num_groups, num_rows, _), num_columns = rows.shape, columns.shape[1]
    size = _GPU_BLOCK if rows.is_cuda else _CPU_BLOCK
    groups = min(num_groups, max(1, size // (num_rows * num_columns)))
    height = max(1, size // (groups * num_columns))
    for group in range(0, num_groups, groups):
        for row in range(0, num_rows, height):
            yield slice(group, group + groups), slice(row, row + height)


def _gap(ours: Tensor, theirs: Tensor, negatives: Negatives) -> tuple[Tensor, Tensor | None]:
    """The differences of similarities, and where the student's do not count because they are below 0."""
    match negatives:
        case "keep":
            return ours - theirs, None
        case "zero":
            return ours.clamp(min=0) - theirs.clamp(min=0), ours < 0
        case "zero_teacher":
            return ours - theirs.clamp(min=0), None


def gram_loss(
    student: Float[Tensor, "b n dim"],
    teacher: Float[Tensor, "b n dim_t"],
    *,
    over: Literal["image", "batch"] = "image",
    normalised: bool = True,
    negatives: Negatives = "keep",
    group: Group,
) -> Float[Tensor, ""]:
    """The mean squared difference of two matrices of similarities among patches, in fp32.

    Within an image x with patches p, q: mean over p, q of (⟨s_p, s_q⟩ − ⟨t_p, t_q⟩)², then over images.

    Args:
        student: patch features of the global crops; the gradient goes to them.
        teacher: of the Gram teacher, on the same grid (see `gram_targets`); no gradient. Widths may differ.
        over: similarities among the patches of an image, or among all patches of all images of the group.
        normalised: features are brought to unit length first, so that similarities are cosines.
        negatives: similarities below 0 stay; are 0 on both sides; or are 0 on the teacher's side alone. The
            last is what the official `remove_only_teacher_neg` computes; the student's stay even where
            both are below 0, since the teacher's are 0 by the time that the code looks at them.
        group: whose patches are looked at for `over="batch"`; `Alone` for this process's, as officially.

    Returns:
        The mean over this process's rows.

    Source: arXiv:2508.10104, §4.
    """
    features = [student.float(), teacher.detach().float()]
    if normalised:
        features = [nn.functional.normalize(x, dim=-1) for x in features]
    columns = features
    if over == "batch":
        columns = [group.gather(x.flatten(0, 1))[None] for x in features]
        features = [x.flatten(0, 1)[None] for x in features]
    (ours, theirs), (our_columns, their_columns) = features, columns
    gap: Tensor = _SquaredGap.apply(ours, our_columns, (theirs, their_columns), negatives)
    return gap / (ours.shape[0] * ours.shape[1] * our_columns.shape[1])


@torch.no_grad()
def gram_targets(
    patches: Float[Tensor, "b n dim"], grid: tuple[int, int], *, to: tuple[int, int]
) -> Float[Tensor, "b m dim"]:
    """The Gram teacher's patch features, made of larger crops, on the student's grid.

    Bicubic without antialiasing, before any normalisation: the smooth map of a large crop holds more than
    one made of a small crop.

    Args:
        patches: features of the teacher's crops, row by row.
        grid: their rows and columns.
        to: rows and columns of the student's.

    Source: arXiv:2508.10104, §4.
    """
    return resampled(patches, grid, to=to, mode="bicubic")
