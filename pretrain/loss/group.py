"""Everybody who holds a part of the global batch, as the losses see it."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Group(Protocol):
    """The processes that share one batch; equal parts, in the order of their ranks."""

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    @property
    def rank(self) -> int:
        """Which of them this is, from 0."""
        ...

    def sum(self, x: Tensor) -> Tensor:
        """The sum over all of them of tensors of one shape; no gradient passes."""
        ...

    def gather(self, x: Float[Tensor, "b dim"]) -> Float[Tensor, "n dim"]:
        """The rows of all of them, in order of rank; gradients flow back to where the rows came from."""
        ...


class Alone:
    """A group of one."""

    size = 1
    rank = 0

    def sum(self, x: Tensor) -> Tensor:
        """x itself."""
        return x

    def gather(self, x: Float[Tensor, "b dim"]) -> Float[Tensor, "b dim"]:
        """x itself."""
        return x
