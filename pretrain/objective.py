"""What is minimised: DINO + iBOT + KoLeo on one batch or a piece of it, given a student and its targets.

Nothing here knows of devices, ranks or files: a `Group` stands for whoever holds the rest of the batch.
"""

from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from pretrain.gram import GramConfig
from pretrain.loss.dino import dino_loss
from pretrain.loss.gram import gram_loss
from pretrain.loss.group import Alone, Group
from pretrain.loss.ibot import ibot_loss, patch_weights
from pretrain.loss.koleo import koleo_loss
from pretrain.loss.patch_maps import resampled
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
        description="where KoLeo looks for neighbours: the whole batch, or a rank's part as officially, of "
        "which each micro-batch is one where gradients are accumulated",
    )


class Batch(NamedTuple):
    """Normalised crops of B images, and which patches of the global ones are masked."""

    globals_: Float[Tensor, "two_b c g g"]  # crop 1 of all images, then crop 2
    locals_: Float[Tensor, "local_b c l l"]  # likewise, crop by crop
    masks: Bool[Tensor, "two_b n"]


class Losses(NamedTuple):
    """Every term with its weight, as it enters the total; None for one that a training does not have."""

    dino_local: Float[Tensor, ""] | None = None
    dino_global: Float[Tensor, ""] | None = None
    ibot: Float[Tensor, ""] | None = None
    koleo: Float[Tensor, ""] | None = None
    gram: Float[Tensor, ""] | None = None
    features: Float[Tensor, ""] | None = None

    @property
    def terms(self) -> dict[str, Float[Tensor, ""]]:
        """Those that there are, by name."""
        return {name: term for name, term in self._asdict().items() if term is not None}

    @property
    def total(self) -> Float[Tensor, ""]:
        """What is minimised."""
        return torch.stack(list(self.terms.values())).sum()


class Anchoring(NamedTuple):
    """What holds the likenesses among patches: the Gram teacher's patches, on the student's grid."""

    patches: Float[Tensor, "two_b n dim"]
    weight: float
    config: GramConfig


class Known(NamedTuple):
    """A term that was computed on the whole batch before: its value, and its gradient for a piece's rows."""

    value: Float[Tensor, ""]
    gradient: Float[Tensor, "two_b dim"]


def student_losses(
    student: Network,
    batch: Batch,
    targets: Scores,
    config: ObjectiveConfig,
    *,
    group: Group,
    masks_student: bool = True,
    koleo: Known | None = None,
    anchoring: Anchoring | None = None,
    grid: tuple[int, int] | None = None,
) -> Losses:
    """The weighted terms of the objective on this process's part of the batch, or a piece of that.

    The mean of their gradients over the group is the gradient on the whole batch, when every part masks
    patches of its own number of images (`num_images` divides each part by its own size); so is the mean over
    pieces, but for KoLeo over the whole batch, which is computed on all of them before (`koleo_of`).

    Args:
        student: in training mode.
        batch: of this process.
        targets: see `pretrain.targets`.
        config: the constants.
        group: that shares the batch.
        masks_student: whether the student sees mask tokens; without, the masks only say at which patches it
            is compared, as in distillation.
        koleo: the unweighted KoLeo of the whole batch, for a piece of it.
        anchoring: what the patches of the global crops, masked ones too, are held to; None: nothing.
        grid: rows and columns of the patches of targets and masks; None: the student's own. To another one
            its patches are resampled bilinearly.

    Source: arXiv:2304.07193, §4 and §5.
    """
    masks = batch.masks if masks_student else None
    views, crops = student.backbone([batch.globals_, batch.locals_], [masks, None])
    patches = masked(_on_grid(views, student, batch.globals_, grid), batch.masks)
    scores = student.project(torch.cat([views.cls, crops.cls]), patches)
    num_views, temperature = len(batch.globals_), config.student_temperature
    dino = dino_loss(scores.cls[:num_views], scores.cls[num_views:], targets.cls, temperature=temperature)
    ibot = ibot_loss(
        scores.patches,
        targets.patches,
        patch_weights(batch.masks),
        num_images=num_views,
        temperature=temperature,
    )
    spreading = spread(views.cls, config, group=group) if koleo is None else _known(views.cls, koleo)
    return Losses(
        config.dino_weight * dino.local,
        config.dino_weight * dino.globals_,
        config.ibot_weight * ibot,
        config.koleo_weight * spreading,
        None if anchoring is None else _held_to(views.patches, anchoring, group=group),
    )


def _held_to(
    patches: Float[Tensor, "two_b n dim"], anchoring: Anchoring, *, group: Group
) -> Float[Tensor, ""]:
    config = anchoring.config
    value = gram_loss(
        patches,
        anchoring.patches,
        over="image" if config.over == "image" else "batch",
        normalised=config.normalised,
        negatives=config.negatives,
        group=group if config.over == "batch" else Alone(),
    )
    return anchoring.weight * value


def spread(cls: Float[Tensor, "two_b dim"], config: ObjectiveConfig, *, group: Group) -> Float[Tensor, ""]:
    """KoLeo of both global crops, without its weight.

    Args:
        cls: of the student, crop 1 of all images, then crop 2.
        config: where neighbours are looked for.
        group: that shares the batch.
    """
    neighbours = group if config.koleo_over == "batch" else Alone()
    return torch.stack([koleo_loss(view, group=neighbours) for view in cls.chunk(2)]).sum()


def koleo_of(pieces: list[Float[Tensor, "_ dim"]], config: ObjectiveConfig, *, group: Group) -> list[Known]:
    """KoLeo over all pieces of this process's part, and what each piece's rows have to do with it.

    The gradients are scaled so that the mean over the pieces, which the other terms are, is right for this
    one.

    Args:
        pieces: class tokens of the student for each piece, crop 1 of its images, then crop 2.
        config: where neighbours are looked for.
        group: that shares the batch.

    Source: the gradient cache of arXiv:2101.06983, §3.
    """
    views = [torch.cat(part) for part in zip(*(piece.chunk(2) for piece in pieces), strict=True)]
    rows = torch.cat(views).detach().requires_grad_()
    with torch.enable_grad():
        value = spread(rows, config, group=group)
        [gradient] = torch.autograd.grad(value, rows)
    lengths = [len(piece) // 2 for piece in pieces]
    parts = (view.split(lengths) for view in (len(pieces) * gradient).chunk(2))
    return [Known(value.detach(), torch.cat(part)) for part in zip(*parts, strict=True)]


class _KnownTerm(torch.autograd.Function):
    """A value with a gradient, both computed elsewhere."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        ctx.dtype = rows.dtype
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        [gradient] = ctx.saved_tensors
        return (grads[0] * gradient).to(ctx.dtype), None, None


def _known(rows: Tensor, koleo: Known) -> Tensor:
    term: Tensor = _KnownTerm.apply(rows, koleo.value, koleo.gradient)
    return term


def grid_of(images: Float[Tensor, "b c h w"], patch_px: int) -> tuple[int, int]:
    """Rows and columns of the patches of images."""
    height, width = images.shape[-2:]
    return height // patch_px, width // patch_px


def _on_grid(
    features: Features, student: Network, images: Float[Tensor, "b c h w"], grid: tuple[int, int] | None
) -> Features:
    own = grid_of(images, student.backbone.config.patch_px)
    if grid in (None, own):
        return features
    patches = resampled(features.patches, own, to=grid, mode="bilinear")
    return features._replace(patches=patches.to(features.patches.dtype))


def masked(features: Features, masks: Bool[Tensor, "b n"]) -> Float[Tensor, "num_masked dim"]:
    """The patches under the mask, image by image."""
    return take_rows(features.patches.flatten(0, 1), masks.flatten().nonzero()[:, 0])
