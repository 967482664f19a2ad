"""Cross-entropy with soft targets over many prototypes, in pieces that stay in the cache."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

# A row has up to 131,072 scores. 32 rows of them in fp32 are 16 MB at most, and the whole matrix, of which a
# plain log-softmax would write three copies, is only ever read. A GPU wants more to do at once: 1 GB at most.
_CPU_ROWS, _GPU_ROWS = 32, 2048


class _SoftCrossEntropy(torch.autograd.Function):
    """−Σ_k t_k log softmax(s / T)_k for each row; its gradient is (Σt · softmax(s / T) − t) / T."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
        losses, log_sums = [], []
        for scores, wanted in _pieces(logits, targets):
            scaled = scores.float() / temperature
            log_sums.append(scaled.logsumexp(dim=1))
            mass = wanted.sum(dim=1)
            losses.append(mass * log_sums[-1] - torch.linalg.vecdot(wanted, scaled))
        ctx.save_for_backward(logits, targets, torch.cat(log_sums))
        ctx.temperature = temperature
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        logits, targets, log_sums = ctx.saved_tensors
        made = torch.empty_like(logits)
        shares = grads[0] / ctx.temperature
        for out, scores, wanted, log_sum, grad in _pieces(made, logits, targets, log_sums, shares):
            soft = (scores.float() / ctx.temperature).sub_(log_sum[:, None]).exp_()
            out.copy_(soft.mul_(wanted.sum(dim=1, keepdim=True)).sub_(wanted).mul_(grad[:, None]))
        return made, None, None


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same few rows of each, piece by piece."""
    num_rows = _GPU_ROWS if tensors[0].is_cuda else _CPU_ROWS
    return zip(*(tensor.split(num_rows) for tensor in tensors), strict=True)


def soft_cross_entropy(
    logits: Float[Tensor, "n prototypes"], targets: Float[Tensor, "n prototypes"], *, temperature: float
) -> Float[Tensor, "n"]:
    """−Σ_k targets_k · log softmax(logits / temperature)_k of each row, in fp32.

    Args:
        logits: the student's scores, in any dtype; the gradient has it too.
        targets: fp32; a row may sum to something else than 1, as a sum of several targets does.
        temperature: of the student.
    """
    entropies: Tensor = _SoftCrossEntropy.apply(logits, targets, temperature)
    return entropies
