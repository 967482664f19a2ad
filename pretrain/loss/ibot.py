"""The patch-level loss: masked patches predict what the teacher sees in their place."""

from jaxtyping import Bool, Float
from torch import Tensor

from pretrain.loss.cross_entropy import soft_cross_entropy


def patch_weights(masks: Bool[Tensor, "b n"]) -> Float[Tensor, "num_masked"]:
    """1 / (masked patches of its image) for every masked patch, row by row."""
    per_image = masks.sum(dim=1).clamp(min=1).float()
    return (1 / per_image)[:, None].expand_as(masks)[masks]


def ibot_loss(
    logits: Float[Tensor, "num_masked prototypes"],
    targets: Float[Tensor, "num_masked prototypes"],
    weights: Float[Tensor, "num_masked"],
    *,
    num_images: int,
    temperature: float,
) -> Float[Tensor, ""]:
    """Cross-entropy of the masked patches, a mean within each image, then over all images.

    Args:
        logits: student scores of the masked patches.
        targets: of the teacher, at the same patches.
        weights: see `patch_weights`.
        num_images: global crops, those without a mask counted in.
        temperature: of the student.

    Source: arXiv:2111.07832, eq. 2; arXiv:2304.07193, §4.
    """
    return (soft_cross_entropy(logits, targets, temperature=temperature) * weights).sum() / num_images
