"""What a teacher wants of a student, for a batch that is worked through in pieces.

The targets of a piece are those that it has in the whole batch: Sinkhorn–Knopp and the centre see all pieces
of all processes. Held of a piece are the features of its class tokens and masked patches, some hundred
numbers a row; scores, of which a row has up to 131,072, are made anew by the heads whenever they are needed:
with Sinkhorn–Knopp four times, with a centre twice. A batch in one piece has them made once and held.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pretrain.loss.group import Group
from pretrain.loss.sinkhorn import (
    Piece,
    assigned,
    centred_softmax,
    moved_centre,
    prototype_factors,
    weights_of,
)
from pretrain.model.network import Network, Scores
from pretrain.objective import Batch, ObjectiveConfig, masked


class Centres(NamedTuple):
    """The moving means of the teacher's scores; Sinkhorn–Knopp leaves them where they are."""

    cls: Float[Tensor, "prototypes"]
    patches: Float[Tensor, "patch_prototypes"]


def initial_centres(network: Network, *, device: torch.device | str = "cpu") -> Centres:
    """Zeros, one for each prototype of a teacher's heads."""
    return Centres(*(torch.zeros(head.config.prototypes, device=device) for head in network.heads))


class Seen(NamedTuple):
    """What is kept of a teacher's look at a piece."""

    cls: Float[Tensor, "two_b dim"]
    patches: Float[Tensor, "num_masked dim"]


class Targets:
    """The target probabilities of a teacher's heads, piece by piece.

    Attributes:
        centres: for the next step.

    Source: arXiv:2304.07193, §4.
    """

    @torch.no_grad()
    def __init__(
        self,
        teacher: Network,
        batches: Iterable[Batch],
        centres: Centres,
        config: ObjectiveConfig,
        *,
        temperature: float,
        group: Group,
    ) -> None:
        """Look at all pieces.

        Args:
            teacher: in eval mode; it sees the global crops without masks.
            batches: of this process, the pieces in order; one at a time is held.
            centres: those in force.
            config: the constants.
            temperature: of the teacher.
            group: that shares the batch, each of its processes in as many pieces.
        """
        scores = _scores(teacher, [_look(teacher, batch) for batch in batches])
        self._temperature = temperature
        self._centring = config.centring
        self._makers = scores
        self._fixed: Sequence[Tensor] = centres
        self.centres = centres
        if config.centring == "softmax":
            self.centres = Centres(
                *(
                    moved_centre(
                        centre, (make() for make in makers), momentum=config.centre_momentum, group=group
                    )
                    for makers, centre in zip(scores, centres, strict=True)
                )
            )
        else:
            self._makers = [_weights(makers, temperature=temperature) for makers in scores]
            self._fixed = [prototype_factors(makers, group=group) for makers in self._makers]

    @torch.no_grad()
    def of(self, number: int) -> Scores:
        """Target probabilities of a piece, fp32: class tokens, crop by crop, and masked patches.

        Each piece is asked for once: what was held of it is overwritten.
        """
        made = (makers[number]() for makers in self._makers)
        if self._centring == "softmax":
            pairs = zip(made, self._fixed, strict=True)
            return Scores(*(centred_softmax(s, c, temperature=self._temperature) for s, c in pairs))
        return Scores(*(assigned(q, factors) for q, factors in zip(made, self._fixed, strict=True)))


def _look(teacher: Network, batch: Batch) -> Seen:
    """The class tokens and the masked patches of the global crops, which the teacher sees whole."""
    [features] = teacher.backbone([batch.globals_])
    # Not a view: it would keep every token of its piece.
    return Seen(features.cls.clone(), masked(features, batch.masks))


def _scores(teacher: Network, seen: Sequence[Seen]) -> list[list[Piece]]:
    """What makes the scores of each piece: of its class tokens, and of its patches."""
    if len(seen) == 1:
        return [[partial(_held, scores)] for scores in teacher.project(*seen[0])]
    return [[partial(_score, head, piece[kind]) for piece in seen] for kind, head in enumerate(teacher.heads)]


def _weights(makers: Sequence[Piece], *, temperature: float) -> list[Piece]:
    """What makes exp(scores / T) of each piece; of a lone one it is held."""
    if len(makers) == 1:
        return [partial(_held, weights_of(makers[0](), temperature=temperature))]
    return [partial(_weigh, make, temperature) for make in makers]


def _held(made: Tensor) -> Tensor:
    return made


@torch.no_grad()
def _score(head: nn.Module, features: Tensor) -> Tensor:
    scores: Tensor = head(features)
    return scores


def _weigh(make: Piece, temperature: float) -> Tensor:
    return weights_of(make(), temperature=temperature)


def teacher_targets(
    teacher: Network,
    batch: Batch,
    centres: Centres,
    config: ObjectiveConfig,
    *,
    temperature: float,
    group: Group,
) -> tuple[Scores, Centres]:
    """The targets of a batch in one piece, and the centres for the next step; see `Targets`."""
    made = Targets(teacher, [batch], centres, config, temperature=temperature, group=group)
    return made.of(0), made.centres
