"""What a teacher without heads wants of a student: its features themselves, of the global crops."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from pretrain.loss.features import feature_loss
from pretrain.model.network import Network
from pretrain.objective import Batch, Losses, grid_of
from pretrain.targets import Centres


class FeaturesConfig(BaseModel):
    """The loss for a teacher without heads: the student predicts its features through two linear layers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cls_weight: float = Field(1.0, ge=0, description="of 1 − cosine of the class tokens")
    patches_weight: float = Field(
        1.0, ge=0, description="of 0.9 (1 − cosine) + 0.1 smooth-L1 of the patches, the mean over all of them"
    )


class TeacherFeatures(NamedTuple):
    """What a teacher gives for the global crops of a piece."""

    cls: Float[Tensor, "two_b dim"]
    patches: Float[Tensor, "two_b n dim"]
    grid: tuple[int, int]


class FeatureTargets:
    """The features of a teacher for a batch, piece by piece. All pieces' patches are held.

    Attributes:
        centres: as they were: there are no scores to have any.
    """

    @torch.no_grad()
    def __init__(self, teacher: Network, batches: Iterable[Batch], centres: Centres) -> None:
        """Look at all pieces.

        Args:
            teacher: in eval mode; it sees the global crops whole.
            batches: of this process, the pieces in order; one at a time is held.
            centres: handed on.
        """
        self.centres = centres
        self._seen = [_look(teacher, batch.globals_) for batch in batches]

    def of(self, number: int) -> TeacherFeatures:
        """Those of a piece."""
        return self._seen[number]


def _look(teacher: Network, images: Float[Tensor, "two_b c g g"]) -> TeacherFeatures:
    [features] = teacher.backbone([images])
    grid = grid_of(images, teacher.backbone.config.patch_px)
    return TeacherFeatures(features.cls, features.patches, grid)


def feature_losses(
    student: Network,
    images: Float[Tensor, "two_b c h w"],
    wanted: TeacherFeatures,
    config: FeaturesConfig,
    *,
    masks: Bool[Tensor, "two_b n"] | None,
) -> Losses:
    """How far a student's guesses are from a teacher's features. Local crops have no part in it.

    Args:
        student: in training mode, with a feature head.
        images: global crops.
        wanted: of the same crops.
        config: the weights.
        masks: patches that the student does not see; None: it sees all.
    """
    assert student.feature_head is not None, "a student of a teacher without heads has a feature head"
    [features] = student.backbone([images], [masks])
    guesses = student.feature_head(features.cls, features.patches)
    apart = feature_loss(
        guesses.cls,
        guesses.patches,
        teacher_cls=wanted.cls,
        teacher_patches=wanted.patches,
        grid=grid_of(images, student.backbone.config.patch_px),
        teacher_grid=wanted.grid,
    )
    return Losses(features=config.cls_weight * apart.cls + config.patches_weight * apart.patches)
