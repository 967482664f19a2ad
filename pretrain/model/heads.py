"""The projection head: from features to prototype scores."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pretrain.model.vit import init_linears


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """The shape of a projection head: input, hidden and bottleneck width, and number of prototypes (K)."""

    dim: int
    prototypes: int = 65_536
    hidden_dim: int = 2048
    bottleneck_dim: int = 256


class WeightNormLinear(nn.Module):
    """A linear layer without bias whose rows have a direction and a length: w = g · v / ‖v‖.

    Source: arXiv:1602.07868, eq. 2.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(out_dim, 1))
        self.weight_v = nn.Parameter(nn.Linear(in_dim, out_dim, bias=False).weight.detach())

    def forward(self, x: Float[Tensor, "n in_dim"]) -> Float[Tensor, "n out_dim"]:
        """Scores of each row against each direction."""
        length = self.weight_v.norm(dim=1, keepdim=True)
        return nn.functional.linear(x, self.weight_v * (self.weight_g / length))


class ProjectionHead(nn.Module):
    """Three linear layers with GELUs, a unit-length bottleneck, and one score for each prototype.

    Source: arXiv:2104.14294, §3.1 and appendix C; arXiv:2304.07193, §4.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.mlp = nn.Sequential(
            nn.Linear(config.dim, config.hidden_dim),
            nn.GELU(),
            nn.Linear(config.hidden_dim, config.hidden_dim),
            nn.GELU(),
            nn.Linear(config.hidden_dim, config.bottleneck_dim),
        )
        init_linears(self)
        self.last_layer = WeightNormLinear(config.bottleneck_dim, config.prototypes)

    def forward(self, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n prototypes"]:
        """Prototype scores (logits) of features."""
        eps = 1e-6 if x.dtype is torch.float16 else 1e-12
        logits: Tensor = self.last_layer(nn.functional.normalize(self.mlp(x), dim=-1, eps=eps))
        return logits
