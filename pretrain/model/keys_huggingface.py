"""Tensor names and `config.json` of Hugging Face's `Dinov2Model` and `Dinov2WithRegistersModel`, on disk.

In memory transformers 5 has other names; files keep these, whichever version wrote them.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from curation.errors import ModelError
from pretrain.model.block import NORM_EPS
from pretrain.model.keys_official import State, renamed
from pretrain.model.vit import MLP_RATIO, ViTConfig

MODEL_TYPES = ("dinov2", "dinov2_with_registers")
# What precedes every name when a model with a classifier was saved.
MODEL_PREFIX = re.compile(rf"(?:{'|'.join(MODEL_TYPES)})\.")
LAYER = "encoder.layer."
QKV = re.compile(r"(encoder\.layer\.\d+)\.attention\.attention\.(query|key|value)\.(weight|bias)")
# Ours to theirs. A name is of a tensor, or of a module whose weight and bias follow.
OUTSIDE = {
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "pos_embed": "embeddings.position_embeddings",
    "register_tokens": "embeddings.register_tokens",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
IN_BLOCK = {
    "norm1": "norm1",
    "attn.qkv": "attention.attention.qkv",  # not a name of theirs: three are made of it
    "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "mlp.w12": "mlp.weights_in",
    "mlp.w3": "mlp.weights_out",
    "ls2.gamma": "layer_scale2.lambda1",
}


def has_huggingface_names(state: State) -> bool:
    """Whether names are those of Hugging Face."""
    return any(MODEL_PREFIX.sub("", name, count=1).startswith(("embeddings.", LAYER)) for name in state)


def from_huggingface(state: State) -> dict[str, Tensor]:
    """Official names for theirs, query, key and value joined; a name that is not known stays as it is.

    Raises:
        ModelError: two tensors come to have one name.
    """
    return renamed(_joined(renamed(state, lambda name: MODEL_PREFIX.sub("", name, count=1))), _to_ours)


def to_huggingface(state: State) -> dict[str, Tensor]:
    """Their names for the official ones, query, key and value apart.

    Args:
        state: a complete backbone under official names.
    """
    made: dict[str, Tensor] = {}
    for name, tensor in state.items():
        theirs = _to_theirs(name)
        if ".qkv." in theirs:
            for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                made[theirs.replace(".qkv.", f".{part}.")] = third
        else:
            made[theirs] = tensor
    return made


def huggingface_config(config: ViTConfig) -> dict[str, object]:
    """The `config.json` of a model of this shape; its own grid is the image size."""
    fields = {
        "architectures": ["Dinov2WithRegistersModel" if config.registers else "Dinov2Model"],
        "model_type": MODEL_TYPES[bool(config.registers)],
        "hidden_size": config.dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "mlp_ratio": MLP_RATIO,
        "hidden_act": "gelu",
        "use_swiglu_ffn": config.ffn == "swiglu",
        "qkv_bias": True,
        "layer_norm_eps": NORM_EPS,
        "layerscale_value": config.layer_scale,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
        "initializer_range": 0.02,
        "image_size": config.grid * config.patch_px,
        "patch_size": config.patch_px,
        "num_channels": config.channels,
        "dtype": "float32",
    }
    return fields | (
        {"num_register_tokens": config.registers} if config.registers else {"use_mask_token": True}
    )


def read_huggingface_config(fields: Mapping[str, Any]) -> tuple[int, int]:
    """Heads and depth from a `config.json`; 12 where it is silent, as transformers has it.

    Raises:
        ModelError: it is of another model, or of a variant whose tensors fit and whose features differ.
    """
    expected = {"hidden_act": "gelu", "layer_norm_eps": NORM_EPS}
    found = {key: fields.get(key, value) for key, value in expected.items()}
    if fields["model_type"] not in MODEL_TYPES or found != expected:
        raise ModelError(
            "config.json describes a model that is not built here",
            got=f"model_type {fields['model_type']}, {found}",
            expected=f"model_type {' or '.join(MODEL_TYPES)}, {expected}",
        )
    return int(fields.get("num_attention_heads", 12)), int(fields.get("num_hidden_layers", 12))


def _joined(state: State) -> dict[str, Tensor]:
    """Query, key and value as one, where all three are there."""
    made: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not (found := QKV.fullmatch(name)):
            made[name] = tensor
            continue
        layer, _, kind = found.groups()
        parts = [f"{layer}.attention.attention.{part}.{kind}" for part in ("query", "key", "value")]
        if all(part in state for part in parts):
            made[f"{layer}.attention.attention.qkv.{kind}"] = torch.cat([state[part] for part in parts])
        else:
            made[name] = tensor
    return made


def _to_ours(name: str) -> str:
    if name.startswith(LAYER):
        number, _, rest = name.removeprefix(LAYER).partition(".")
        ours = _translated(rest, {theirs: ours for ours, theirs in IN_BLOCK.items()})
        return name if ours is None else f"blocks.{number}.{ours}"
    return _translated(name, {theirs: ours for ours, theirs in OUTSIDE.items()}) or name


def _to_theirs(name: str) -> str:
    if name.startswith("blocks."):
        _, number, rest = name.split(".", 2)
        theirs = _translated(rest, IN_BLOCK)
        assert theirs is not None, name
        return f"{LAYER}{number}.{theirs}"
    theirs = _translated(name, OUTSIDE)
    assert theirs is not None, name
    return theirs


def _translated(name: str, names: Mapping[str, str]) -> str | None:
    if name in names:
        return names[name]
    module, _, kind = name.rpartition(".")
    return f"{names[module]}.{kind}" if module in names and kind in ("weight", "bias") else None
