"""A spreading force: every image is pushed away from its nearest neighbour in the batch."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pretrain.loss.group import Group

EPS = 1e-8


def koleo_loss(features: Float[Tensor, "b dim"], *, group: Group) -> Float[Tensor, ""]:
    """−mean log of the distance to the nearest neighbour, on the unit sphere, in fp32.

    Args:
        features: one view of each image, not normalised.
        group: among whose rows neighbours are looked for; `Alone` for this process's batch, as officially.

    Returns:
        The mean over this process's rows; 0 where there is no other row to be away from.

    Source: arXiv:1806.03198, eq. 4 (Kozachenko–Leonenko); arXiv:2304.07193, §4.
    """
    own = nn.functional.normalize(features.float(), dim=-1, eps=EPS)
    everyone = group.gather(own)
    if len(everyone) < 2:
        return own.sum() * 0
    with torch.no_grad():
        similar = own @ everyone.T
        rows = torch.arange(len(own), device=own.device)
        similar[rows, rows + group.rank * len(own)] = -1
        nearest = similar.argmax(dim=1)
    distance = nn.functional.pairwise_distance(own, everyone[nearest], eps=EPS)
    return -(distance + EPS).log().mean()
