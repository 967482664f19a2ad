"""Cross-entropy with soft targets over many prototypes, in pieces that stay in the cache."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

# A row has up to 131,072 scores. 32 rows of them in fp32 are 16 MB at most, and the whole matrix, of which a
# plain log-softmax would write three copies, is only ever read.
_ROWS = 32


class _SoftCrossEntropy(torch.autograd.Function):
    """−Σ_k t_k log softmax(s / T)_k for each row; its gradient is (Σt · softmax(s / T) − t) / T."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
        losses, log_sums = [], []
        for scores, wanted in zip(logits.split(_ROWS), targets.split(_ROWS), strict=True):
            scaled = scores.float() / temperature
            log_sums.append(scaled.logsumexp(dim=1))
            mass = wanted.sum(dim=1)
            losses.append(mass * log_sums[-1] - torch.linalg.vecdot(wanted, scaled))
        if not losses:
            return logits.new_zeros(0, dtype=torch.float32)
        ctx.save_for_backward(logits, targets, torch.cat(log_sums))
        ctx.temperature = temperature
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None]:
        if not ctx.saved_tensors:
            return None, None, None
        logits, targets, log_sums = ctx.saved_tensors
        made = torch.empty_like(logits)
        rows = zip(
            *(x.split(_ROWS) for x in (made, logits, targets, log_sums, grads[0] / ctx.temperature)),
            strict=True,
        )
        for out, scores, wanted, log_sum, grad in rows:
            soft = (scores.float() / ctx.temperature).sub_(log_sum[:, None]).exp_()
            out.copy_(soft.mul_(wanted.sum(dim=1, keepdim=True)).sub_(wanted).mul_(grad[:, None]))
        return made, None, None


def soft_cross_entropy(
    logits: Float[Tensor, "n prototypes"], targets: Float[Tensor, "n prototypes"], *, temperature: float
) -> Float[Tensor, "n"]:
    """−Σ_k targets_k · log softmax(logits / temperature)_k of each row, in fp32.

    Args:
        logits: the student's scores, in any dtype; the gradient has it too.
        targets: fp32; a row may sum to something else than 1, as a sum of several targets does.
        temperature: of the student.
    """
    return _SoftCrossEntropy.apply(logits, targets, temperature)
