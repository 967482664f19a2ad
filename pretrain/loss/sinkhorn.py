"""Targets out of the teacher's scores: Sinkhorn–Knopp, or a softmax around a moving centre.

A batch may come in pieces, which are asked for again and again instead of being held: the result is that of
the whole batch.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pretrain.loss.group import Group

NUM_ITERATIONS = 3

Piece = Callable[[], Float[Tensor, "n prototypes"]]  # makes the same numbers on every call


@torch.no_grad()
def sinkhorn_knopp(
    logits: Float[Tensor, "n prototypes"], *, temperature: float, group: Group
) -> Float[Tensor, "n prototypes"]:
    """Assign the samples of the whole group to prototypes so that every prototype gets an equal share.

    Q = diag(s) exp(logits / T) diag(p) has rows of 1 and, after enough rounds, columns of n / prototypes.
    Only the two vectors are iterated; the matrix itself is read and never rewritten, which halves the memory
    traffic of the textbook form.

    Args:
        logits: this process's rows; computed in fp32.
        temperature: T of the teacher.
        group: over which rows are counted and columns summed.

    Returns:
        fp32; rows sum to 1.

    Source: arXiv:2006.09882, appendix A; arXiv:2304.07193, §4.
    """
    q = weights_of(logits, temperature=temperature)
    return assigned(q, prototype_factors([lambda: q], group=group))


def weights_of(logits: Float[Tensor, "n prototypes"], *, temperature: float) -> Float[Tensor, "n prototypes"]:
    """exp(logits / T) in fp32, in memory of its own.

    No maximum is subtracted, as officially: at T = 0.04 and prototypes of about unit length the exponent
    stays within about ± 25.
    """
    return (logits.float() / temperature).exp_()


@torch.no_grad()
def prototype_factors(pieces: Sequence[Piece], *, group: Group) -> Float[Tensor, "prototypes"]:
    """p of Sinkhorn–Knopp, over all pieces of all processes; every process has as many pieces.

    Args:
        pieces: each makes exp(logits / T) of its rows; one at a time is held, and each is made once a round.
        group: over which columns are summed.

    Source: arXiv:2006.09882, appendix A.
    """
    factors: Tensor | None = None
    for _ in range(NUM_ITERATIONS):
        columns: Tensor | None = None
        for piece in pieces:
            q = piece()
            samples = q.new_ones(len(q)) if factors is None else 1 / (q @ factors)
            columns = samples @ q if columns is None else columns + samples @ q
        assert columns is not None, "there is a piece at least"
        total = group.sum(columns)
        # The rows of a matrix whose sum is 1 are where the first round begins.
        factors = (total.sum() if factors is None else 1) / (total.numel() * total)
    assert factors is not None
    return factors


@torch.no_grad()
def assigned(
    q: Float[Tensor, "n prototypes"], factors: Float[Tensor, "prototypes"]
) -> Float[Tensor, "n prototypes"]:
    """The rows of diag(s) q diag(p) that sum to 1; `q` is overwritten."""
    return q.mul_(factors).div_(q.sum(dim=1, keepdim=True))


@torch.no_grad()
def centred_softmax(
    logits: Float[Tensor, "n prototypes"], centre: Float[Tensor, "prototypes"], *, temperature: float
) -> Float[Tensor, "n prototypes"]:
    """softmax((logits − centre) / T) in fp32.

    Source: arXiv:2104.14294, §3.1.
    """
    return ((logits.float() - centre) / temperature).softmax(dim=1)


@torch.no_grad()
def moved_centre(
    centre: Float[Tensor, "prototypes"],
    pieces: Iterable[Float[Tensor, "_ prototypes"]],
    *,
    momentum: float,
    group: Group,
) -> Float[Tensor, "prototypes"]:
    """The centre for the next step: an exponential mean of the mean scores over the whole group.

    Args:
        centre: that in force.
        pieces: of this process's scores.
        momentum: of the mean.
        group: that shares the batch.

    Source: arXiv:2104.14294, eq. 4.
    """
    total, num = torch.zeros_like(centre), 0
    for logits in pieces:
        total += logits.sum(dim=0, dtype=torch.float32)
        num += len(logits)
    everyone = group.sum(torch.tensor(float(num), device=centre.device))
    return centre.lerp(group.sum(total) / everyone.clamp(min=1), 1 - momentum)
