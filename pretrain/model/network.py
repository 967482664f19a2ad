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
    `ibot_head.…` unless one head serves both. A network without heads is a backbone to compare features with.
    """

    def __init__(
        self, backbone: BackboneConfig, dino_head: HeadConfig | None, ibot_head: HeadConfig | None
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone)
        self.dino_head = ProjectionHead(dino_head) if dino_head else None
        self.ibot_head = ProjectionHead(ibot_head) if ibot_head else None

    @property
    def heads(self) -> tuple[ProjectionHead, ProjectionHead]:
        """The head of class tokens, and that of patches, which may be the same."""
        assert self.dino_head is not None, "this network has a backbone alone"
        return self.dino_head, self.dino_head if self.ibot_head is None else self.ibot_head

    def project(self, cls: Float[Tensor, "n dim"], patches: Float[Tensor, "m dim"]) -> Scores:
        """Scores of class tokens and of patches, with one call to each head."""
        dino_head, ibot_head = self.heads
        if ibot_head is not dino_head:
            return Scores(dino_head(cls), ibot_head(patches))
        scores = dino_head(torch.cat([cls, patches]))
        return Scores(scores[: len(cls)], scores[len(cls) :])


def build_backbone(config: BackboneConfig) -> Backbone:
    """A backbone of this shape, with weights drawn from torch's own generator."""
    match config:
        case ViTConfig():
            return VisionTransformer(config)
        case ConvNetConfig():
            return ConvNet(config)
