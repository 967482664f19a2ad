"""What is trained: a backbone with the heads that its losses need. Student and teacher are one each."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pretrain.model.convnet import ConvNet, ConvNetConfig
from pretrain.model.heads import HeadConfig, ProjectionHead
from pretrain.model.vit import VisionTransformer, ViTConfig

# Both take groups of images and give `Features` of each; `config` tells dim, depth, patch_px, grid, channels.
Backbone = VisionTransformer | ConvNet
BackboneConfig = ViTConfig | ConvNetConfig


class Scores(NamedTuple):
    """Prototype scores of class tokens and of patches."""

    cls: Float[Tensor, "n prototypes"]
    patches: Float[Tensor, "m patch_prototypes"]


class Network(nn.Module):
    """A backbone, the head of its class tokens, and that of its patches.

    The keys of its state are those of the official training dumps: `backbone.…`, `dino_head.…`, and
    `ibot_head.…` unless one head serves both.
    """

    def __init__(self, backbone: BackboneConfig, dino_head: HeadConfig, ibot_head: HeadConfig | None) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone)
        self.dino_head = ProjectionHead(dino_head)
        self.ibot_head = ProjectionHead(ibot_head) if ibot_head else None

    def project(self, cls: Float[Tensor, "n dim"], patches: Float[Tensor, "m dim"]) -> Scores:
        """Scores of class tokens and of patches, with one call to each head."""
        if self.ibot_head is not None:
            return Scores(self.dino_head(cls), self.ibot_head(patches))
        scores = self.dino_head(torch.cat([cls, patches]))
        return Scores(scores[: len(cls)], scores[len(cls) :])


def build_backbone(config: BackboneConfig) -> Backbone:
    """A backbone of this shape, with weights drawn from torch's own generator."""
    match config:
        case ViTConfig():
            return VisionTransformer(config)
        case ConvNetConfig():
            return ConvNet(config)
