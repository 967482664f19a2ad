"""The embedder `vit:CHECKPOINT`: a backbone of our own trainer, or any that it can read."""

from jaxtyping import Float
from torch import Tensor, nn

from curation.errors import ConfigError
from curation.pictures.views import View
from pretrain.evaluate.view import evaluation_view
from pretrain.model.network import Backbone
from pretrain.normalisation import IMAGENET, normalisation_of
from pretrain.weights import load_backbone


class ClassToken(nn.Module):
    """A backbone as an image tower: the class token after the final norm."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Float[Tensor, "n c s s"]) -> Float[Tensor, "n dim"]:
        """Features of a batch of normalised images."""
        [features] = self.backbone([images])
        cls: Tensor = features.cls
        return cls


def load_tower(
    path: str, *, image_size_px: int | None
) -> tuple[ClassToken, View, tuple[float, ...], tuple[float, ...]]:
    """The tower, its view, and mean and standard deviation of its input.

    Args:
        path: see `pretrain.weight_files.find_weights`.
        image_size_px: side of the input; the model's own where None.

    Raises:
        ConfigError: when the side is no multiple of the model's patch.
        ModelError: when the backbone cannot be loaded, or does not take colour pictures.
    """
    backbone = load_backbone(path)
    shape = backbone.config
    side_px = image_size_px or shape.grid * shape.patch_px
    if side_px % shape.patch_px:
        below_px = side_px // shape.patch_px * shape.patch_px
        raise ConfigError(
            f"image_size_px is no multiple of the patch of vit:{path}",
            got=f"{side_px} px, patches of {shape.patch_px} px",
            expected=" or ".join(str(px) for px in (below_px, below_px + shape.patch_px) if px),
        )
    if shape.channels != len(IMAGENET.mean):
        raise ConfigError(
            f"vit:{path} does not take pictures in colour", got=f"{shape.channels} channels", expected=3
        )
    normalisation = normalisation_of(path)
    if normalisation.bands is not None:
        raise ConfigError(
            f"vit:{path} does not take pictures in colour", got=f"bands {normalisation.bands}", expected="RGB"
        )
    return ClassToken(backbone), evaluation_view(side_px), normalisation.mean, normalisation.std
