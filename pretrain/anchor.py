"""The Gram teacher of a training: a backbone that is held still, and becomes the teacher now and then."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from pretrain.checkpoint import load_network
from pretrain.checkpoint_files import GRAM
from pretrain.gram import GramConfig, gram_weight, is_refreshed
from pretrain.loss.gram import gram_targets
from pretrain.model.network import Network
from pretrain.objective import Anchoring
from pretrain.optimizer import move_teacher
from pretrain.parallel import ParallelConfig, Place, Placed, assign


class Anchor:
    """What a student's likenesses among patches are held to, from some iteration on.

    Attributes:
        config: when and how strongly.
        placed: the Gram teacher, a backbone of the shape of the teacher's, sharded as that one is; None until
            there is one, which then takes no memory.
    """

    def __init__(self, config: GramConfig, like: Network, where: Place, parallel: ParallelConfig) -> None:
        """None so far.

        Args:
            config: when and how strongly.
            like: a network with a backbone of the same shape.
            where: this rank's place.
            parallel: as for the teacher.
        """
        self.config = config
        self.placed: Placed | None = None
        self._shape = like.backbone.config
        self._where = where
        self._parallel = parallel

    @property
    def network(self) -> Network | None:
        """What is saved of it: fp32 parameters, sharded among many processes."""
        return None if self.placed is None else self.placed.network

    def follow(self, step: int, teacher: Placed) -> None:
        """Become the teacher as it is before iteration `step`, where that is due.

        The first one is the teacher at `start`, or later where a training begins after that; unless it is
        there already, from a checkpoint that `teacher` names or that the training begins with.
        """
        is_first = self.placed is None and step >= self.config.start
        if is_first or (step > self.config.start and is_refreshed(step, self.config)):
            placed = self._own()
            move_teacher(placed.network.backbone, teacher.network.backbone, momentum=0.0)
            placed.refresh()

    def take(self, state: Mapping[str, Tensor]) -> None:
        """Become a backbone: whole tensors by their official keys, of this shape."""
        placed = self._own()
        for name, tensor in placed.network.backbone.state_dict(keep_vars=True).items():
            assign(tensor.data, state[name])
        placed.refresh()

    def load(self, folder: Path, fit: Callable[[str, Tensor], Tensor] = lambda _name, tensor: tensor) -> bool:
        """Become the Gram teacher of a checkpoint, if it has one; every rank must call.

        Args:
            folder: of the checkpoint.
            fit: makes of a tensor, by name, what this shape wants in its place.

        Returns:
            Whether it has one.

        Raises:
            IntegrityError: it is of another model.
        """
        if not (folder / GRAM).is_file():
            return False
        placed = self._own()
        load_network(placed.network, folder / GRAM, fit)
        placed.refresh()
        return True

    def weight(self, step: int) -> float:
        """Of the term in iteration `step`."""
        return gram_weight(step, self.config)

    @torch.no_grad()
    def on(
        self, crops: Float[Tensor, "b c m m"], globals_: Float[Tensor, "b c g g"], *, step: int
    ) -> Anchoring:
        """What a batch, or a piece of it, is held to in iteration `step`, from `start` on.

        Args:
            crops: what the Gram teacher sees, normalised.
            globals_: what the student sees, for its grid.
            step: the iteration.
        """
        assert self.placed is not None, "followed before"
        [features] = self.placed.working.backbone([crops])
        patches = gram_targets(features.patches, self._grid(crops), to=self._grid(globals_))
        return Anchoring(patches, self.weight(step), self.config)

    def _grid(self, crops: Float[Tensor, "b c h w"]) -> tuple[int, int]:
        rows, columns = (side // self._shape.patch_px for side in crops.shape[-2:])
        return rows, columns

    def _own(self) -> Placed:
        if self.placed is None:
            network = Network(self._shape, None, None).requires_grad_(False).eval()
            self.placed = Placed(network, self._where, self._parallel)
        return self.placed
