"""Batch normalisation whose statistics a training can hold: counted once a batch, in fp32, and undone.

torch's own counts whenever it is called in training mode, also when activations are computed again for the
backward, and in bf16 it takes no statistics of fp32.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """γ (x − μ) / √(σ² + ε) + β by channel; μ and σ are of the batch in training, else of those before it.

    The running statistics are the module's buffers, all of fp32. Each process counts its own images.

    Source: arXiv:1502.03167, algorithm 1.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, dim: int, *, eps: float, momentum: float) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum  # how far a batch moves the running statistics
        self.is_counting = True
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, x: Float[Tensor, "b dim h w"]) -> Float[Tensor, "b dim h w"]:
        """Normalise each channel; in training mode the running statistics move as well."""
        mean, var = self.running_mean, self.running_var
        if not self.training:
            mean, var = mean.float(), var.float()  # of a model that was cast as a whole
        elif not self.is_counting:
            mean, var = mean.clone(), var.clone()  # None would save other tensors for the backward
        return nn.functional.batch_norm(
            x, mean, var, self.weight.float(), self.bias.float(), self.training, self.momentum, self.eps
        )


def with_own_batch_norms(network: nn.Module) -> None:
    """Put a `BatchNorm` in the place of each of torch's in a network, with its parameters and statistics.

    Raises:
        ValueError: for one that is more than torch's, or keeps no statistics.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(child, nn.modules.batchnorm._BatchNorm):
                continue
            if type(child) is not nn.BatchNorm2d or child.momentum is None or not child.track_running_stats:
                raise ValueError(f"a batch normalisation of another kind: {name}, {child}")
            made = BatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
            made.weight, made.bias = child.weight, child.bias
            setattr(parent, name, made.train(child.training))


@contextmanager
def uncounted(network: nn.Module) -> Iterator[None]:
    """Within, a forward in training mode leaves the running statistics where they are."""
    norms = [module for module in network.modules() if isinstance(module, BatchNorm)]
    before = [norm.is_counting for norm in norms]
    for norm in norms:
        norm.is_counting = False
    try:
        yield
    finally:
        for norm, is_counting in zip(norms, before, strict=True):
            norm.is_counting = is_counting
