"""The vision transformer of DINOv2, under the official key names."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pretrain.model.block import NORM_EPS, Block, Mlp, SwiGLU
from pretrain.model.positions import interpolate_positions

Ffn = Literal["mlp", "swiglu"]
MLP_RATIO = 4


@dataclass(frozen=True, slots=True)
class ViTConfig:
    """The shape of a vision transformer: all that its weights need to be understood.

    Attributes:
        dim, depth, num_heads: width (channels), number of blocks, attention heads.
        patch_px: side of a patch.
        grid: rows and columns of the square grid that the position embeddings are learned on.
        channels: of the input.
        ffn: the feed-forward branch.
        registers: tokens that take part in the attention and stand for no patch (arXiv:2309.16588).
        layer_scale: where the factors of the residual branches start.
        drop_path: share of the images for which a residual branch is left out in training.
        position_offset, position_antialias: how position embeddings are resampled (see `positions`).
    """

    dim: int
    depth: int
    num_heads: int
    patch_px: int = 14
    grid: int = 16
    channels: int = 3
    ffn: Ffn = "mlp"
    registers: int = 0
    layer_scale: float = 1e-5
    drop_path: float = 0.0
    position_offset: float = 0.1
    position_antialias: bool = False

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ValueError(f"{self.num_heads} heads do not divide a width of {self.dim}")


Arch = Literal["vit_micro", "vit_tiny", "vit_small", "vit_base", "vit_large", "vit_giant"]


def variant(arch: Arch) -> ViTConfig:
    """A named architecture: width, depth, heads and feed-forward; all else is a field to replace.

    `vit_giant` is the paper's ViT-g, which differs from that of arXiv:2106.04560 in width and heads.

    Source: arXiv:2304.07193, Table 17.
    """
    match arch:
        case "vit_micro":  # for tests and demonstrations
            return ViTConfig(dim=96, depth=4, num_heads=3)
        case "vit_tiny":
            return ViTConfig(dim=192, depth=12, num_heads=3)
        case "vit_small":
            return ViTConfig(dim=384, depth=12, num_heads=6)
        case "vit_base":
            return ViTConfig(dim=768, depth=12, num_heads=12)
        case "vit_large":
            return ViTConfig(dim=1024, depth=24, num_heads=16)
        case "vit_giant":
            return ViTConfig(dim=1536, depth=40, num_heads=24, ffn="swiglu")


def with_registers(config: ViTConfig, registers: int = 4) -> ViTConfig:
    """The same model with register tokens, and the resampling of positions that those models have."""
    return replace(config, registers=registers, position_offset=0.0, position_antialias=True)


class Features(NamedTuple):
    """What a vision transformer gives for one group of images."""

    cls: Float[Tensor, "b dim"]  # after the final norm
    registers: Float[Tensor, "b r dim"]
    patches: Float[Tensor, "b n dim"]  # row by row
    prenorm: Float[Tensor, "b t dim"]  # every token before the final norm: class, registers, patches


class PatchEmbed(nn.Module):
    """A linear map of each patch, as a convolution whose stride is its size."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(
            config.channels, config.dim, kernel_size=config.patch_px, stride=config.patch_px
        )

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b dim rows columns"]:
        """Patches as a grid."""
        patches: Tensor = self.proj(images)
        return patches


class VisionTransformer(nn.Module):
    """Patches, a class token, registers; blocks; a norm.

    A forward takes several groups of images of different sizes, so that one pass over the parameters serves
    all of them. Any size will do whose sides are multiples of the patch: position embeddings are resampled.

    Source: arXiv:2010.11929; arXiv:2304.07193, §4 and §5; registers: arXiv:2309.16588.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.grid**2, dim))
        self.register_tokens = (
            nn.Parameter(torch.zeros(1, config.registers, dim)) if config.registers else None
        )
        self.mask_token = nn.Parameter(torch.zeros(1, dim))
        self.blocks = nn.ModuleList(_block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self._init_weights()

    def forward(
        self,
        groups: Sequence[Float[Tensor, "_ c _ _"]],
        masks: Sequence[Bool[Tensor, "_ _"] | None] | None = None,
    ) -> list[Features]:
        """Features of each group of images.

        Args:
            groups: normalised images; within a group all of one size, in px a multiple of the patch.
            masks: for each group the patches (b, n) that the mask token replaces, or None for none.

        Raises:
            ValueError: when a size is no multiple of the patch.
        """
        masks = [None] * len(groups) if masks is None else masks
        tokens = [self._tokens(images, mask) for images, mask in zip(groups, masks, strict=True)]
        for block in self.blocks:
            tokens = block(tokens)
        return [self._features(group) for group in tokens]

    def intermediate_layers(
        self, images: Float[Tensor, "b c h w"], last: int
    ) -> list[tuple[Float[Tensor, "b dim"], Float[Tensor, "b dim rows columns"]]]:
        """Class token and patch map, after the final norm, of each of the last blocks; the last one last."""
        rows, columns = self._grid_of(images)
        tokens = [self._tokens(images, None)]
        found = []
        for number, block in enumerate(self.blocks):
            tokens = block(tokens)
            if number >= len(self.blocks) - last:
                features = self._features(tokens[0])
                found.append((features.cls, features.patches.mT.unflatten(2, (rows, columns))))
        return found

    def _tokens(self, images: Tensor, mask: Tensor | None) -> Float[Tensor, "b t dim"]:
        grid = self._grid_of(images)
        patches = self.patch_embed(images).flatten(2).mT
        if mask is not None:
            patches = torch.where(mask[..., None], self.mask_token.to(patches.dtype), patches)
        positions = interpolate_positions(
            self.pos_embed[:, 1:],
            grid,
            offset=self.config.position_offset,
            antialias=self.config.position_antialias,
        )
        # Registers carry no position, and come in after those of the class token and the patches are added.
        parts = [(self.cls_token + self.pos_embed[:, :1]).expand(images.shape[0], -1, -1)]
        if self.register_tokens is not None:
            parts.append(self.register_tokens.expand(images.shape[0], -1, -1))
        return torch.cat([*parts, patches + positions], dim=1)

    def _features(self, tokens: Tensor) -> Features:
        normed = self.norm(tokens)
        first_patch = 1 + self.config.registers
        return Features(normed[:, 0], normed[:, 1:first_patch], normed[:, first_patch:], tokens)

    def _grid_of(self, images: Tensor) -> tuple[int, int]:
        height, width = images.shape[-2:]
        side = self.config.patch_px
        if height % side or width % side:
            raise ValueError(
                f"Images of {height} × {width} px cannot be cut into patches of {side} px: "
                "both sides must be multiples of it"
            )
        return height // side, width // side

    def _init_weights(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        if self.register_tokens is not None:
            nn.init.normal_(self.register_tokens, std=1e-6)
        init_linears(self)  # the patch embedding, a convolution, keeps torch's own


def init_linears(module: nn.Module) -> None:
    """Every linear layer: weights from a normal of 0.02, truncated, and no bias."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def _block(config: ViTConfig) -> Block:
    kind = {"mlp": Mlp, "swiglu": SwiGLU}[config.ffn]
    return Block(
        config.dim,
        config.num_heads,
        ffn=kind(config.dim, MLP_RATIO * config.dim),
        layer_scale=config.layer_scale,
        drop_path=config.drop_path,
    )
