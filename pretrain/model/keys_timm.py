"""Tensor names and `config.json` of timm's `VisionTransformer`.

timm has no mask token, calls SwiGLU's layers `fc1` and `fc2`, and gives a model with registers a class token
to which its position is already added, and positions for the patches alone.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from curation.errors import ModelError
from pretrain.model.block import SwiGLU
from pretrain.model.keys_official import State, renamed
from pretrain.model.vit import MLP_RATIO, ViTConfig, variant

FFN = re.compile(r"(blocks\.\d+\.mlp)\.(fc1|fc2)\.(weight|bias)")
ARCHITECTURE = re.compile(r"vit_(small|base|large|giant)_patch14(?:_reg4)?_dinov2")
# Arguments of a `VisionTransformer` that change features and leave no trace in the tensors.
SILENT_ARGS = ("act_layer", "norm_layer", "embed_norm_layer", "block_fn", "attn_layer")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CROP_FRACTION = 0.875  # of the resized side: 256 px before a crop of 224


def from_timm(state: State) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Official names for timm's.

    Positions are those of the patches alone (`no_embed_class`) where their number is a square, as in timm's
    DINOv2 models with registers; then the class token has its own in it already, and gets one of zeros.
    Otherwise they are those of class token, registers and patches; then those of the registers, for which the
    official layout has no place, are added to the registers. The features stay the same.

    Returns:
        The tensors, and the names of those that timm lacks and that are zeros here: the mask token.
    """
    made = renamed(state, lambda name: _unpacked_name(name, state))
    if "reg_token" in made:
        made["register_tokens"] = made.pop("reg_token")
    if "pos_embed" in made and "cls_token" in made:
        _unfold(made)
    filled: tuple[str, ...] = ()
    if "mask_token" not in made and "cls_token" in made:
        made["mask_token"] = torch.zeros_like(made["cls_token"][0])
        filled = ("mask_token",)
    return made, filled


def to_timm(state: State) -> dict[str, Tensor]:
    """timm's names for the official ones: no mask token, and with registers the class token's position added.

    Args:
        state: a complete backbone under official names.
    """
    made = renamed(
        state, lambda name: name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")
    )
    del made["mask_token"]
    if "register_tokens" in made:
        made["reg_token"] = made.pop("register_tokens")
        made["cls_token"] = made["cls_token"] + made["pos_embed"][:, :1]
        made["pos_embed"] = made["pos_embed"][:, 1:]
    return made


def timm_config(
    config: ViTConfig, *, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
) -> dict[str, object]:
    """The `config.json` of a model of this shape, for `local-dir:` and the hub.

    Everything is said in `model_args`; the architecture lends what JSON cannot hold, the class of SwiGLU.
    Images of other sizes are taken as they are (`dynamic_img_size`).
    """
    side_px = config.grid * config.patch_px
    return {
        "architecture": _architecture(config),
        "num_classes": 0,
        "num_features": config.dim,
        "global_pool": "token",
        "model_args": _model_args(config),
        "pretrained_cfg": {
            "input_size": [config.channels, side_px, side_px],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": CROP_FRACTION,
            "crop_mode": "center",
            "mean": list(mean),
            "std": list(std),
            "num_classes": 0,
            "custom_load": False,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }


def read_timm_config(fields: Mapping[str, Any]) -> tuple[int, int]:
    """Heads and depth from a `config.json`.

    Raises:
        ModelError: it names neither them nor a DINOv2 architecture, or a variant whose features differ.
    """
    args = fields.get("model_args") or {}
    found = ARCHITECTURE.fullmatch(fields["architecture"].partition(".")[0])
    silent = [key for key in SILENT_ARGS if key in args]
    if silent or not (found or {"num_heads", "depth"} <= args.keys()):
        raise ModelError(
            "config.json describes a model that is not built here",
            got=f"architecture {fields['architecture']}, model_args {args}",
            expected="vit_…_patch14_dinov2 or vit_…_patch14_reg4_dinov2, or num_heads and depth in "
            f"model_args, without {', '.join(SILENT_ARGS)}",
        )
    told = {} if found is None else _size(found[1])
    told |= {key: args[key] for key in ("num_heads", "depth") if key in args}
    return int(told["num_heads"]), int(told["depth"])


def _model_args(config: ViTConfig) -> dict[str, object]:
    ratio: float = MLP_RATIO
    if config.ffn == "swiglu":
        # timm truncates dim · ratio to the width of fc1; the half keeps rounding from taking one off.
        ratio = (_packed_width(config.dim) + 0.5) / config.dim
    return {
        "img_size": config.grid * config.patch_px,
        "patch_size": config.patch_px,
        "embed_dim": config.dim,
        "depth": config.depth,
        "num_heads": config.num_heads,
        "mlp_ratio": ratio,
        "init_values": config.layer_scale,
        "reg_tokens": config.registers,
        "no_embed_class": config.registers > 0,
        "dynamic_img_size": True,
    }


def _unfold(made: dict[str, Tensor]) -> None:
    """Positions of the class token and the patches, in place of timm's."""
    positions, registers = made["pos_embed"], made.get("register_tokens")
    num_registers = 0 if registers is None else registers.shape[1]
    if math.isqrt(positions.shape[1]) ** 2 == positions.shape[1]:
        made["pos_embed"] = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
    elif registers is not None:
        made["register_tokens"] = registers + positions[:, 1 : 1 + num_registers]
        made["pos_embed"] = torch.cat([positions[:, :1], positions[:, 1 + num_registers :]], dim=1)


def _unpacked_name(name: str, state: State) -> str:
    """The name itself, or, where the first layer is twice as wide as the second takes, that of SwiGLU."""
    if not (found := FFN.fullmatch(name)):
        return name
    block, layer, kind = found.groups()
    first, second = state.get(f"{block}.fc1.weight"), state.get(f"{block}.fc2.weight")
    if first is None or second is None or first.shape[0] != 2 * second.shape[-1]:
        return name
    return f"{block}.{'w12' if layer == 'fc1' else 'w3'}.{kind}"


def _packed_width(dim: int) -> int:
    with torch.device("meta"):
        return SwiGLU(dim, MLP_RATIO * dim).w12.out_features


def _architecture(config: ViTConfig) -> str:
    size = "giant" if config.ffn == "swiglu" else "base"
    for known in ("small", "base", "large"):
        if config.ffn == "mlp" and config.dim == _size(known)["dim"]:
            size = known
    return f"vit_{size}_patch14{'_reg4' if config.registers else ''}_dinov2"


def _size(name: str) -> dict[str, int]:
    match name:
        case "small":
            config = variant("vit_small")
        case "base":
            config = variant("vit_base")
        case "large":
            config = variant("vit_large")
        case _:
            config = variant("vit_giant")
    return {"dim": config.dim, "num_heads": config.num_heads, "depth": config.depth}
