"""A backbone's tensors, whichever library named them: under official names, with the shape they tell of."""

import math
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from torch import Tensor

from curation.errors import ModelError
from pretrain.model.hollow import hollow
from pretrain.model.keys_huggingface import from_huggingface, has_huggingface_names
from pretrain.model.keys_official import State, backbone_of, flatten, is_training_dump
from pretrain.model.keys_timm import from_timm
from pretrain.model.network import Backbone, BackboneConfig, build_backbone
from pretrain.model.vit import Ffn, ViTConfig, with_registers

Library = Literal["official", "huggingface", "timm"]
HEAD_DIM = 64  # channels of an attention head, in every released model
BLOCK = re.compile(r"blocks\.(\d+)\.")
# In the names of the authors (first three), of Hugging Face and of timm, where DINOv3 keeps no positions.
ROTARY = re.compile(
    r"(?:^|\.)(?:rope(?:_embed|_embeddings)?\.|storage_tokens$)|attn\.qkv\.bias_mask$"
    r"|(?:^|\.)layer\.\d+\.attention\.[qkvo]_proj\.|blocks\.\d+\.gamma_[12]$"
)
# Tensors that the shape is read from, and their axes.
TELLING = {"patch_embed.proj.weight": 4, "pos_embed": 3, "register_tokens": 3}
MAX_NAMED = 50


class Converted(NamedTuple):
    """A backbone under official names: from which library, and which tensors that library does not keep."""

    state: dict[str, Tensor]
    library: Library
    filled: tuple[str, ...]  # zeros; the mask token of a timm model, or nothing


def detect(content: Mapping[Any, Any]) -> Library:
    """Whose names these are.

    A timm model without registers and SwiGLU differs from an official one by its lack of a mask token alone;
    under the names of a training run (`backbone.…`) it is an official one that lacks it.

    Args:
        content: what a file holds.

    Raises:
        ModelError: it is no vision transformer of a known library.
    """
    flat = flatten(content)
    state = backbone_of(flat)
    if has_huggingface_names(state):
        return "huggingface"
    if not any(BLOCK.match(name) for name in state):
        raise ModelError(
            "No vision transformer of a known library",
            got=", ".join(list(state)[:10]) or "no tensors",
            expected="blocks.0.… (official, timm) or encoder.layer.0.… (Hugging Face)",
            remedy="Give the weights of a DINOv2 backbone",
        )
    is_official = {"mask_token", "register_tokens"} & state.keys() or any(
        ".mlp.w12." in name for name in state
    )
    return "official" if is_official or is_training_dump(flat) else "timm"


def to_official(content: Mapping[Any, Any], library: Library | None = None) -> Converted:
    """The backbone in what a file holds, under official names.

    Args:
        content: tensors by name, wrapped or not, of any library.
        library: whose names they are; found out where None.

    Raises:
        ModelError: it is no vision transformer of a known library, one with rotary embeddings, or not of
            tensors alone.
    """
    state = backbone_of(flatten(content))
    _refuse_rotary(state)
    library = detect(content) if library is None else library
    match library:
        case "official":
            return Converted(state, library, ())
        case "huggingface":
            return Converted(from_huggingface(state), library, ())
        case "timm":
            made, filled = from_timm(state)
            return Converted(made, library, filled)


def _refuse_rotary(state: State) -> None:
    """Raise for a backbone that turns its queries and keys by their places: DINOv3, under anybody's names."""
    if rotary := [name for name in state if ROTARY.search(name)]:
        raise ModelError(
            "Rotary embeddings (DINOv3) are not supported",
            got=_listed(rotary),
            expected="a backbone with learned positions, such as DINOv2's",
            remedy="Give the weights of a DINOv2 backbone",
        )


def infer_config(state: State, *, num_heads: int | None = None) -> ViTConfig:
    """The shape of the backbone that these tensors are of.

    What tensors do not tell is taken as in the released models: heads of 64 channels, and positions resampled
    with an offset of 0.1 and no antialiasing without registers, with 0 and antialiasing with them.

    Args:
        state: under official names.
        num_heads: of the attention; dim // 64 where None.

    Raises:
        ModelError: tensors that tell the shape are missing (then all missing ones are named) or have another
            number of axes, or the heads do not divide the width.
    """
    depth = 1 + max((int(found[1]) for name in state if (found := BLOCK.match(name))), default=-1)
    ffn: Ffn = "swiglu" if any(".mlp.w12." in name for name in state) else "mlp"
    _check_telling(state, depth, ffn)
    dim, channels, patch_px, _ = state["patch_embed.proj.weight"].shape
    heads = dim // HEAD_DIM if num_heads is None else num_heads
    if heads < 1 or dim % (HEAD_DIM if num_heads is None else heads):
        raise ModelError(
            f"The tensors do not tell how many attention heads share {dim} channels",
            got=f"heads of {HEAD_DIM} channels" if num_heads is None else f"{num_heads} heads",
            expected=f"a divisor of {dim}",
            remedy="Give the number of heads, or weights that carry it (safetensors or Hugging Face)",
        )
    config = ViTConfig(
        dim,
        depth,
        heads,
        patch_px=patch_px,
        grid=math.isqrt(max(state["pos_embed"].shape[1] - 1, 0)),
        channels=channels,
        ffn=ffn,
    )
    tokens = state.get("register_tokens")
    return config if tokens is None else with_registers(config, tokens.shape[1])


def expected_shapes(config: BackboneConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a backbone, by official name."""
    return {name: tuple(tensor.shape) for name, tensor in hollow_backbone(config).state_dict().items()}


def hollow_backbone(config: BackboneConfig) -> Backbone:
    """A backbone whose tensors have no memory (meta): what nobody fills cannot be computed with."""
    with hollow():
        return build_backbone(config)


def check_fit(state: State, config: BackboneConfig) -> None:
    """Make sure that tensors are those of a backbone: all of them, no other, each in its shape.

    Raises:
        ModelError: with the names of all (up to 50) that are missing, of another shape, or not expected.
    """
    check_shapes(state, expected_shapes(config))


def check_shapes(state: State, shapes: Mapping[str, tuple[int, ...]], *, what: str = "the backbone") -> None:
    """Make sure that tensors are those of a model: all of them, no other, each in its shape.

    Args:
        state: tensors by name.
        shapes: of all that there must be.
        what: the model, as the error shall call it.

    Raises:
        ModelError: with the names of all (up to 50) that are missing, of another shape, or not expected.
    """
    wrong = [
        f"{_told(name, state)} for {shapes[name]}"
        for name in shapes
        if name in state and (tuple(state[name].shape) != shapes[name] or not state[name].is_floating_point())
    ]
    missing = [name for name in shapes if name not in state]
    unexpected = [name for name in state if name not in shapes]
    if missing or wrong or unexpected:
        raise _no_fit(what, missing=missing, wrong=wrong, unexpected=unexpected)


def _check_telling(state: State, depth: int, ffn: Ffn) -> None:
    """Raise where the shape cannot be read; what else is missing is named as well."""
    if not {"patch_embed.proj.weight", "pos_embed"} <= state.keys():
        registers = int("register_tokens" in state)
        names = expected_shapes(ViTConfig(1, depth, 1, patch_px=1, grid=1, ffn=ffn, registers=registers))
        raise _no_fit(missing=[name for name in names if name not in state])
    wrong = [
        _told(name, state) for name, axes in TELLING.items() if name in state and state[name].ndim != axes
    ]
    if wrong:
        raise _no_fit(wrong=wrong)


def _no_fit(
    what: str = "the backbone",
    *,
    missing: list[str] | None = None,
    wrong: list[str] | None = None,
    unexpected: list[str] | None = None,
) -> ModelError:
    found = [
        f"{len(names)} {fault}: {_listed(names)}"
        for names, fault in ((missing, "missing"), (wrong, "of another shape"), (unexpected, "not expected"))
        if names
    ]
    return ModelError(
        f"The tensors are not those of {what}",
        got="; ".join(found),
        expected="every tensor of the model, in its shape, and no other",
        remedy="Save the complete model, and give its own config with it",
    )


def _listed(names: list[str]) -> str:
    rest = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _told(name: str, state: State) -> str:
    return f"{name} {tuple(state[name].shape)} {str(state[name].dtype).removeprefix('torch.')}"
