"""Targets out of the teacher's scores: Sinkhorn–Knopp, or a softmax around a moving centre."""

import torch
from jaxtyping import Float
from torch import Tensor

from pretrain.loss.group import Group

NUM_ITERATIONS = 3


@torch.no_grad()
def sinkhorn_knopp(
    logits: Float[Tensor, "n prototypes"], *, temperature: float, group: Group
) -> Float[Tensor, "n prototypes"]:
    """Assign the samples of the whole group to prototypes so that every prototype gets an equal share.

    Q = diag(s) exp(logits / T) diag(p) has rows of 1 and, after enough rounds, columns of n / prototypes.
    Only the two vectors are iterated; the matrix itself is read and never rewritten, which halves the memory
    traffic of the textbook form. No maximum is subtracted, as officially: at T = 0.04 and prototypes of
    about unit length the exponent stays within about ± 25.

    Args:
        logits: this process's rows; computed in fp32.
        temperature: T of the teacher.
        group: over which rows are counted and columns summed.

    Returns:
        fp32; rows sum to 1.

    Source: arXiv:2006.09882, appendix A; arXiv:2304.07193, §4.
    """
    num_prototypes = logits.shape[1]
    q = (logits.float() / temperature).exp_()
    num_samples = group.sum(torch.tensor(float(len(q)), device=q.device))
    samples = (1 / group.sum(q.sum())).expand(len(q))
    prototypes = q.new_ones(num_prototypes)
    for _ in range(NUM_ITERATIONS):
        prototypes = 1 / (num_prototypes * group.sum(samples @ q))
        samples = 1 / (num_samples * (q @ prototypes))
    return q.mul_(prototypes).mul_((samples * num_samples)[:, None])


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
    logits: Float[Tensor, "n prototypes"],
    *,
    momentum: float,
    group: Group,
) -> Float[Tensor, "prototypes"]:
    """The centre for the next step: an exponential mean of the mean scores over the whole group.

    Source: arXiv:2104.14294, eq. 4.
    """
    total = group.sum(logits.sum(dim=0, dtype=torch.float32))
    num = group.sum(torch.tensor(float(len(logits)), device=logits.device))
    return centre.lerp(total / num.clamp(min=1), 1 - momentum)
