"""Backbones with nothing at rest: every tensor is random and large enough to show in the features."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from pretrain.model.vit import VisionTransformer, ViTConfig, with_registers

Module = TypeVar("Module", bound=nn.Module)


def small(*, ffn: str = "mlp", registers: int = 0, dim: int = 128, num_heads: int = 2) -> ViTConfig:
    """Three blocks for images of 56 px."""
    config = ViTConfig(dim, 3, num_heads, grid=4, ffn=ffn)  # type: ignore[arg-type]
    return with_registers(config, registers) if registers else config


def drawn(config: ViTConfig, seed: int = 0) -> VisionTransformer:
    """A backbone in eval mode, drawn anew."""
    return randomise(VisionTransformer(config), seed).eval()


def randomise(module: Module, seed: int = 0) -> Module:
    """Draw every parameter: factors around 1, tokens and positions of 0.5, weights for outputs of about 1."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            noise = torch.randn(tensor.shape, generator=rng)
            is_factor = tensor.ndim == 1 and not name.endswith("bias")
            is_weight = tensor.ndim in (2, 4) and name.endswith("weight")
            scale = 1 / tensor[0].numel() ** 0.5 if is_weight else 0.5
            tensor.copy_(1 + 0.2 * noise if is_factor else scale * noise)
    return module


def images(side_px: int = 56, *, num: int = 2, seed: int = 1) -> Tensor:
    """Random pictures (num, 3, side_px, side_px)."""
    return torch.randn(num, 3, side_px, side_px, generator=torch.Generator().manual_seed(seed))


def tokens(model: VisionTransformer, pictures: Tensor) -> Tensor:
    """Class token, registers and patches after the final norm (b, t, dim)."""
    with torch.inference_mode():
        [found] = model([pictures])
    return torch.cat([found.cls[:, None], found.registers, found.patches], dim=1)
