"""What is minimised: DINO + iBOT + KoLeo on one batch, given a student and a teacher.

Nothing here knows of devices, ranks or files: a `Group` stands for whoever holds the rest of the batch.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from pretrain.loss.dino import dino_loss
from pretrain.loss.group import Alone, Group
from pretrain.loss.ibot import ibot_loss, patch_weights
from pretrain.loss.koleo import koleo_loss
from pretrain.loss.sinkhorn import centred_softmax, moved_centre, sinkhorn_knopp
from pretrain.model.block import take_rows
from pretrain.model.network import Network, Scores
from pretrain.model.vit import Features

Centring = Literal["softmax", "sinkhorn"]


class ObjectiveConfig(BaseModel):
    """The constants of the objective."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    centring: Centring = Field(
        "sinkhorn",
        description="how targets are made: Sinkhorn-Knopp (as ViT-L/14 and g/14), or a softmax around a "
        "moving centre (as ViT-L/16)",
    )
    student_temperature: float = Field(0.1, gt=0, description="of the student's softmax")
    centre_momentum: float = Field(0.9, ge=0, le=1, description="of the moving centre")
    dino_weight: float = Field(1.0, ge=0, description="of the image-level loss")
    ibot_weight: float = Field(1.0, ge=0, description="of the patch-level loss")
    koleo_weight: float = Field(0.1, ge=0, description="of the spreading loss, on each global crop")
    koleo_over: Literal["batch", "rank"] = Field(
        "batch",
        description="where KoLeo looks for neighbours: the whole batch, or a rank's part as officially",
    )


class Batch(NamedTuple):
    """Normalised crops of B images, and which patches of the global ones are masked."""

    globals_: Float[Tensor, "two_b c g g"]  # crop 1 of all images, then crop 2
    locals_: Float[Tensor, "local_b c l l"]  # likewise, crop by crop
    masks: Bool[Tensor, "two_b n"]


class Centres(NamedTuple):
    """The moving means of the teacher's scores; Sinkhorn–Knopp leaves them where they are."""

    cls: Float[Tensor, "prototypes"]
    patches: Float[Tensor, "patch_prototypes"]


class Losses(NamedTuple):
    """Every term with its weight, as it enters the total."""

    dino_local: Float[Tensor, ""]
    dino_global: Float[Tensor, ""]
    ibot: Float[Tensor, ""]
    koleo: Float[Tensor, ""]

    @property
    def total(self) -> Float[Tensor, ""]:
        """What is minimised."""
        return self.dino_local + self.dino_global + self.ibot + self.koleo


def initial_centres(network: Network, *, device: torch.device | str = "cpu") -> Centres:
    """Zeros, one for each prototype."""
    heads = (network.dino_head, network.ibot_head or network.dino_head)
    cls, patches = (torch.zeros(head.config.prototypes, device=device) for head in heads)
    return Centres(cls, patches)


@torch.no_grad()
def teacher_targets(
    teacher: Network,
    batch: Batch,
    centres: Centres,
    config: ObjectiveConfig,
    *,
    temperature: float,
    group: Group,
) -> tuple[Scores, Centres]:
    """What the teacher makes of the unmasked global crops, and the centres for the next step.

    Args:
        teacher: in eval mode.
        batch: of this process.
        centres: those in force.
        config: the constants.
        temperature: of the teacher.
        group: that shares the batch.

    Returns:
        Target probabilities, fp32: of the class tokens (2B, K), crop by crop, and of the masked patches.
    """
    [features] = teacher.backbone([batch.globals_])
    scores = teacher.project(features.cls, _masked(features, batch.masks))
    if config.centring == "sinkhorn":
        targets = (sinkhorn_knopp(s, temperature=temperature, group=group) for s in scores)
        return Scores(*targets), centres
    pairs = list(zip(scores, centres, strict=True))
    targets = (centred_softmax(s, centre, temperature=temperature) for s, centre in pairs)
    moved = (moved_centre(centre, s, momentum=config.centre_momentum, group=group) for s, centre in pairs)
    return Scores(*targets), Centres(*moved)


def student_losses(
    student: Network, batch: Batch, targets: Scores, config: ObjectiveConfig, *, group: Group
) -> Losses:
    """The weighted terms of the objective on this process's part of the batch.

    The mean over the group of their gradients is the gradient on the whole batch, when every part masks
    patches of its own number of images (`num_images` divides each part by its own size).

    Args:
        student: in training mode.
        batch: of this process.
        targets: see `teacher_targets`.
        config: the constants.
        group: that shares the batch.

    Source: arXiv:2304.07193, §4.
    """
    views, crops = student.backbone([batch.globals_, batch.locals_], [batch.masks, None])
    scores = student.project(torch.cat([views.cls, crops.cls]), _masked(views, batch.masks))
    num_views, temperature = len(batch.globals_), config.student_temperature
    dino = dino_loss(scores.cls[:num_views], scores.cls[num_views:], targets.cls, temperature=temperature)
    ibot = ibot_loss(
        scores.patches,
        targets.patches,
        patch_weights(batch.masks),
        num_images=num_views,
        temperature=temperature,
    )
    neighbours = group if config.koleo_over == "batch" else Alone()
    koleo = torch.stack([koleo_loss(view, group=neighbours) for view in views.cls.chunk(2)]).sum()
    return Losses(
        config.dino_weight * dino.local,
        config.dino_weight * dino.globals_,
        config.ibot_weight * ibot,
        config.koleo_weight * koleo,
    )


def _masked(features: Features, masks: Bool[Tensor, "b n"]) -> Float[Tensor, "num_masked dim"]:
    """The patches under the mask, image by image."""
    return take_rows(features.patches.flatten(0, 1), masks.flatten().nonzero()[:, 0])
