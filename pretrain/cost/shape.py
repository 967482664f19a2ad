"""The shape of a training: all that its memory and its arithmetic follow from, whatever it is for.

In pretraining the mean of the only student is the teacher; in distillation a frozen teacher stands beside
several students, each of which has a mean. What is counted here is counted on one rank.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pretrain.model.heads import HeadConfig
from pretrain.model.vit import MLP_RATIO, ViTConfig

Dtype = Literal["fp32", "bf16"]
Device = Literal["cpu", "cuda"]
_FULLEST = 4.0  # deviations above the mean: one in thirty thousand
DTYPE_BYTES: dict[Dtype, int] = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True)
class NetworkShape:
    """A backbone and its heads.

    Attributes:
        backbone: with the stochastic depth that it has in training.
        dino_head: of the class tokens.
        ibot_head: of the patches; None: they share that of the class tokens.
    """

    backbone: ViTConfig
    dino_head: HeadConfig
    ibot_head: HeadConfig | None = None

    @property
    def num_parameters(self) -> int:
        """All of them, heads included."""
        return backbone_parameters(self.backbone) + self.head_parameters

    @property
    def head_parameters(self) -> int:
        """Of the heads alone."""
        return sum(head_parameters(head) for head in self.own_heads)

    @property
    def own_heads(self) -> Sequence[HeadConfig]:
        """The heads that there are: one or two."""
        return [self.dino_head] if self.ibot_head is None else [self.dino_head, self.ibot_head]

    @property
    def patch_head(self) -> HeadConfig:
        """The head that patches pass, be it their own or not."""
        return self.ibot_head or self.dino_head


@dataclass(frozen=True)
class CropShape:
    """Crops of one size: how many of an image, and their patches."""

    num: int
    rows: int
    columns: int

    def tokens(self, backbone: ViTConfig) -> int:
        """Tokens of one crop: class token, registers, patches."""
        return 1 + backbone.registers + self.rows * self.columns


@dataclass(frozen=True)
class TrainingShape:
    """A training.

    Attributes:
        students: the networks that are trained, one after the other within a step.
        teacher: one that is frozen; None: the mean of the only student teaches.
        globals_, locals_: the crops of an image.
        masked_patches: of an image, all its global crops together; these pass the heads.
        masked_deviation: standard deviation of the masked patches of one global crop.
        batch_images: of a step, over all ranks.
        iterations: steps in all.
        ranks: processes that share the batch, one for each card.
        accumulate: micro-batches in which a rank works through its part.
        dtype: of forward and backward.
        device: kind of card.
        checkpoint_activations: whether blocks are computed again in the backward.
        centring: how targets are made.
        spreads_batch: whether KoLeo looks for neighbours in the whole batch.
    """

    students: tuple[NetworkShape, ...]
    teacher: NetworkShape | None
    globals_: CropShape
    locals_: CropShape
    masked_patches: float
    batch_images: int
    iterations: int
    masked_deviation: float = 0.0
    ranks: int = 1
    accumulate: int = 1
    dtype: Dtype = "bf16"
    device: Device = "cuda"
    checkpoint_activations: bool = False
    centring: Literal["softmax", "sinkhorn"] = "sinkhorn"
    spreads_batch: bool = True

    @property
    def rank_images(self) -> int:
        """Images of a rank in a step."""
        return self.batch_images // self.ranks

    @property
    def piece_images(self) -> int:
        """Images whose activations are in memory at once."""
        return self.rank_images // self.accumulate

    @property
    def piece_masked(self) -> int:
        """Masked patches in memory at once: of micro-batches those of the fullest in a long training.

        Masks are stratified over the part of a rank, so that this hardly varies; its pieces get them by lot.
        """
        mean, every = self.piece_images * self.masked_patches, self.rank_images * self.masked_patches
        if self.accumulate == 1:
            return round(mean)
        crops = self.piece_images * self.globals_.num
        return round(min(mean + _FULLEST * self.masked_deviation * math.sqrt(crops), every))

    @property
    def teaches(self) -> NetworkShape:
        """The network that makes the targets."""
        return self.teacher or self.students[0]

    @property
    def dtype_bytes(self) -> int:
        """Bytes of a number in forward and backward."""
        return DTYPE_BYTES[self.dtype]

    @property
    def has_working_copies(self) -> bool:
        """Whether a network is held once more in the precision of its forward (see `pretrain.parallel`)."""
        return self.ranks == 1 and self.dtype != "fp32"

    @property
    def is_even(self) -> bool:
        """Whether the ranks can share the batch, and each of them cut its part."""
        return self.batch_images % (self.ranks * self.accumulate) == 0


def hidden_dim(backbone: ViTConfig) -> int:
    """Width of the feed-forward branch: of each of both factors in SwiGLU."""
    full = MLP_RATIO * backbone.dim
    return full if backbone.ffn == "mlp" else (int(full * 2 / 3) + 7) // 8 * 8


def block_weights(backbone: ViTConfig) -> int:
    """Weights of the matrices of a block; each is used once for every token."""
    factors = 2 if backbone.ffn == "mlp" else 3
    return 4 * backbone.dim**2 + factors * backbone.dim * hidden_dim(backbone)


def block_parameters(backbone: ViTConfig) -> int:
    """Parameters of a block: its matrices, their biases, two norms and two layer scales."""
    first = hidden_dim(backbone) * (1 if backbone.ffn == "mlp" else 2)
    biases = 3 * backbone.dim + backbone.dim + first + backbone.dim
    return block_weights(backbone) + biases + 6 * backbone.dim


def backbone_parameters(backbone: ViTConfig) -> int:
    """Parameters of a vision transformer."""
    dim = backbone.dim
    patch = dim * backbone.channels * backbone.patch_px**2 + dim
    tokens = dim * (1 + 1 + backbone.registers + 1 + backbone.grid**2)  # class, mask, registers, positions
    return patch + tokens + backbone.depth * block_parameters(backbone) + 2 * dim


def head_weights(head: HeadConfig) -> int:
    """Weights of the matrices of a head; each is used once for every row."""
    hidden = head.dim * head.hidden_dim + head.hidden_dim**2 + head.hidden_dim * head.bottleneck_dim
    return hidden + head.bottleneck_dim * head.prototypes


def head_parameters(head: HeadConfig) -> int:
    """Parameters of a head: matrices, biases, and the lengths of the last layer's rows."""
    return head_weights(head) + 2 * head.hidden_dim + head.bottleneck_dim + head.prototypes
