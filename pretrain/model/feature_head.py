"""The head of a student whose teacher has none: from its features to the teacher's width."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from pretrain.model.vit import init_linears


class Projected(NamedTuple):
    """Features of a student as guesses of a teacher's."""

    cls: Float[Tensor, "b teacher_dim"]
    patches: Float[Tensor, "b n teacher_dim"]


class FeatureHead(nn.Module):
    """A linear layer for class tokens and another one for patches.

    Linear, so that what the student has learnt is in its backbone and not in a head that is thrown away.
    """

    def __init__(self, dim: int, teacher_dim: int) -> None:
        super().__init__()
        self.cls = nn.Linear(dim, teacher_dim)
        self.patches = nn.Linear(dim, teacher_dim)
        init_linears(self)

    def forward(self, cls: Float[Tensor, "b dim"], patches: Float[Tensor, "b n dim"]) -> Projected:
        """Both in the teacher's width."""
        return Projected(self.cls(cls), self.patches(patches))
