"""Distillation from a teacher without heads: the student predicts the teacher's features themselves."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from pretrain.loss.patch_maps import resampled

COSINE, SMOOTH_L1 = 0.9, 0.1  # of the patches' loss, arXiv:2312.06709 §3
LAYER_NORM_EPS = 1e-6


class FeatureTerms(NamedTuple):
    """The two shares of the loss, not weighted."""

    cls: Float[Tensor, ""]
    patches: Float[Tensor, ""]


def standardised(features: Float[Tensor, "*b dim"]) -> Float[Tensor, "*b dim"]:
    """Every token with mean 0 and variance 1 over its dimensions, in fp32.

    A layer norm without weights: teachers differ in scale by orders of magnitude, and after it the knee of
    smooth-L1 and the weights of the terms mean the same for all of them. Standardising each dimension over a
    data set (arXiv:2410.01680) would also even out the dimensions, but wants a pass over the data first and
    statistics that every checkpoint and rank has to agree on; a token's own need neither.

    Source: arXiv:2205.14141 (feature distillation; its whitened targets).
    """
    return nn.functional.layer_norm(features.float(), features.shape[-1:], eps=LAYER_NORM_EPS)


def feature_loss(
    cls: Float[Tensor, "b dim"],
    patches: Float[Tensor, "b n dim"],
    *,
    teacher_cls: Float[Tensor, "b dim"],
    teacher_patches: Float[Tensor, "b m dim"],
    grid: tuple[int, int],
    teacher_grid: tuple[int, int],
) -> FeatureTerms:
    """1 − cosine of class tokens; 0.9 (1 − cosine) + 0.1 smooth-L1 of patches, against standardised targets.

    A class token is read by its direction (k-NN, retrieval), so that its length is left free; maps of patches
    are read by linear layers, which want the values too. Where the grids differ, the student's map is
    resampled bilinearly to the teacher's: the target stays what the teacher said.

    Args:
        cls: of the student, already in the teacher's width (`FeatureHead`).
        patches: likewise, row by row. A projection and the resampling commute, both being linear.
        teacher_cls: as the teacher gives them for the same crops; no gradient.
        teacher_patches: likewise.
        grid: rows and columns of the student's patches.
        teacher_grid: of the teacher's.

    Returns:
        Means over images, and over patches.

    Source: arXiv:2312.06709, §3 (AM-RADIO), for one teacher; targets: see `standardised`.
    """
    summary, maps = standardised(teacher_cls.detach()), standardised(teacher_patches.detach())
    guesses = resampled(patches, grid, to=teacher_grid, mode="bilinear")
    smooth_l1 = nn.functional.smooth_l1_loss(guesses, maps)
    return FeatureTerms(_apart(cls.float(), summary), COSINE * _apart(guesses, maps) + SMOOTH_L1 * smooth_l1)


def _apart(x: Float[Tensor, "*b dim"], y: Float[Tensor, "*b dim"]) -> Float[Tensor, ""]:
    """Mean of 1 − cosine."""
    return 1 - nn.functional.cosine_similarity(x, y, dim=-1).mean()
