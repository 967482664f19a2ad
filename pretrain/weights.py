"""Backbones from files: our own checkpoints, official ones, Hugging Face's and timm's.

Nothing in a file is ever run, and nothing that a file lacks is made up: a load covers every tensor of the
backbone or fails with the names of all that are missing.
"""

import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from torch import Tensor

from curation.errors import ModelError
from pretrain.checkpoint_files import MARKER, fault_of, is_checkpoint
from pretrain.model.convnet import ConvNetConfig
from pretrain.model.keys import Converted, check_fit, hollow_backbone, infer_config, to_official
from pretrain.model.keys_convnet import (
    from_timm_convnet,
    is_timm_convnet,
    own_convnet,
    read_timm_convnet_config,
)
from pretrain.model.keys_huggingface import read_huggingface_config
from pretrain.model.keys_official import flatten
from pretrain.model.keys_timm import read_timm_config
from pretrain.model.network import Backbone, BackboneConfig
from pretrain.model.vit import ViTConfig
from pretrain.pickled import read_pickled
from pretrain.weight_files import PICKLED, find_weights

# Under which name the metadata of a file of ours tells the shape of which kind of backbone.
VIT_KEY, CONVNET_KEY = "vit", "convnet"
READ_ERRORS = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    pickle.UnpicklingError,
    SafetensorError,
)


def read_state(path: str | Path) -> tuple[dict[Any, Any], dict[str, str]]:
    """What a weights file holds, on the CPU, and its metadata.

    Args:
        path: a file that `find_weights` gives.

    Returns:
        Tensors by name, in the wrappers that the file has, and the metadata of a `.safetensors` file.

    Raises:
        ModelError: the file cannot be read, is of another kind, or holds Python objects.
    """
    path = Path(path)
    try:
        if path.name.endswith(".index.json"):
            return _read_shards(path), {}
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        if path.suffix in PICKLED:
            return read_pickled(path), {}
    except READ_ERRORS as error:
        raise ModelError(
            f"The weights in {path} cannot be read",
            got=" ".join(str(error).split())[:1000],
            expected="tensors by name, and nothing but tensors and containers of them",
            remedy="With the code that wrote it, save the model's state_dict alone, best as safetensors",
        ) from error
    raise ModelError(
        f"{path} is no kind of weights file that is read here",
        got=path.suffix or "no suffix",
        expected=", ".join((".safetensors", *PICKLED)),
        remedy="Save the weights as safetensors",
    )


def load_backbone(
    path: str | Path, *, num_heads: int | None = None, convnet: ConvNetConfig | None = None
) -> Backbone:
    """The backbone at a path, ready for features: in fp32, on the CPU, in eval mode.

    Its shape is that of the file's own metadata; else that of `config.json` beside a file of Hugging Face or
    timm; else what the tensors tell, with heads of 64 channels (see `infer_config`). Heads and classifiers
    are left out. A file of timm has no mask token, which is then zeros. A convolutional network is one of
    ours or of timm's.

    Args:
        path: see `pretrain.weight_files.find_weights`.
        num_heads: of the attention, for tensors without a config whose heads are not of 64 channels.
        convnet: the shape of a convolutional network, for a file of timm's without a config.

    Raises:
        ModelError: nothing is there, it cannot be read, it is a damaged checkpoint of ours, or it is not
            exactly one backbone; then every missing, unexpected or misshapen tensor is named.
    """
    file = find_weights(path)
    _require_proven(file)
    content, metadata = read_state(file)
    try:
        if CONVNET_KEY in metadata or is_timm_convnet(content):
            config, state = _convnet_of(file, content, metadata, convnet)
        else:
            config, state = _vit_of(file, content, metadata, num_heads)
        _check_heads(config, num_heads)
        check_fit(state, config)
    except ModelError as error:
        what = f"{file} cannot be loaded: {error.what[0].lower()}{error.what[1:]}"
        raise ModelError(what, got=error.got, expected=error.expected, remedy=error.remedy) from error
    model = hollow_backbone(config)
    # Copied, for a tensor may be a view of the file, which somebody may replace.
    copied = {name: tensor.to(torch.float32, copy=True) for name, tensor in state.items()}
    model.load_state_dict(copied, assign=True)
    return model.eval()


def _vit_of(
    file: Path, content: dict[Any, Any], metadata: dict[str, str], num_heads: int | None
) -> tuple[BackboneConfig, dict[str, Tensor]]:
    if VIT_KEY in metadata:
        return config_of_metadata(metadata), to_official(content, "official").state
    converted = to_official(content)
    return _config_beside(file, converted, num_heads), converted.state


def _convnet_of(
    file: Path, content: dict[Any, Any], metadata: dict[str, str], asked: ConvNetConfig | None
) -> tuple[BackboneConfig, dict[str, Tensor]]:
    if CONVNET_KEY in metadata:
        return config_of_metadata(metadata), own_convnet(content)
    fields = _fields_beside(file)
    if "architecture" not in fields and asked is None:
        raise ModelError(
            "The tensors of a convolutional network do not tell which one it is",
            got="no config.json of timm beside them",
            expected="a directory that timm saved, with config.json, or a checkpoint of ours",
            remedy="Save it with timm.models.save_for_hf, or name it as model.arch and start from it",
        )
    beside = read_timm_convnet_config(fields) if "architecture" in fields else None
    config = beside or asked
    assert config is not None
    return config, from_timm_convnet(flatten(content))


def _require_proven(file: Path) -> None:
    """See that weights of a checkpoint of ours are those that were written.

    A checkpoint is known by its name or by its proof; weights that lie elsewhere have none.

    Raises:
        ModelError: they are not, or there is no proof of it.
    """
    folder = file.absolute().parent
    if not (is_checkpoint(folder) or (folder / MARKER).exists()):
        return
    if (fault := fault_of(folder, only=file.name)) is not None:
        raise ModelError(
            f"The checkpoint {file.parent} is damaged",
            got=fault,
            expected=f"the bytes that {MARKER} has the SHA-256 of",
            remedy="Give an earlier checkpoint, or restore this one",
        )


def metadata_of_config(config: BackboneConfig) -> dict[str, str]:
    """The metadata with which a `.safetensors` file of ours tells its model's shape."""
    return {"format": "pt", shape_key(config): json.dumps(asdict(config), sort_keys=True)}


def shape_key(config: BackboneConfig) -> str:
    """The name in a file's metadata under which such a shape is told."""
    return CONVNET_KEY if isinstance(config, ConvNetConfig) else VIT_KEY


def config_of_metadata(metadata: Mapping[str, str]) -> BackboneConfig:
    """The shape that a file of ours tells in its metadata.

    Raises:
        ModelError: it is not such a shape, or has fields that this version does not know.
    """
    key = CONVNET_KEY if CONVNET_KEY in metadata else VIT_KEY
    kind = ConvNetConfig if key == CONVNET_KEY else ViTConfig
    text = metadata[key]
    try:
        fields = json.loads(text)
        if unknown := fields.keys() - kind.__dataclass_fields__.keys():
            raise ValueError(f"unknown fields {sorted(unknown)}")
        return TypeAdapter[BackboneConfig](kind).validate_python(fields)
    except (ValueError, AttributeError, ArithmeticError) as error:
        raise ModelError(
            f"The metadata {key!r} is not the shape of a backbone",
            got=text[:1000],
            expected=f"an object with the fields {', '.join(kind.__dataclass_fields__)}",
            remedy="Read the file with the version of lvd that wrote it, or a later one",
        ) from error


def _check_heads(config: BackboneConfig, num_heads: int | None) -> None:
    if isinstance(config, ConvNetConfig):
        if num_heads is not None:
            raise ModelError("A convolutional network has no heads", got=num_heads, remedy="Leave them out")
    elif num_heads not in (None, config.num_heads):
        raise ModelError(
            "Its config has another number of heads than was asked for",
            got=num_heads,
            expected=config.num_heads,
            remedy="Leave the number of heads out",
        )


def _read_safetensors(path: Path) -> tuple[dict[Any, Any], dict[str, str]]:
    with safe_open(path, framework="pt", device="cpu") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def _read_shards(index: Path) -> dict[str, Any]:
    names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    if elsewhere := [name for name in names if Path(name).name != name]:
        raise ValueError(f"files outside of its directory: {elsewhere}")
    state: dict[str, Any] = {}
    for name in names:
        state |= _read_safetensors(index.parent / name)[0]
    return state


def _config_beside(file: Path, converted: Converted, num_heads: int | None) -> ViTConfig:
    """The shape that the tensors tell, and, where the library's `config.json` is there, what that adds."""
    fields = _fields_beside(file)
    match converted.library:
        case "huggingface" if "model_type" in fields:
            heads, depth = read_huggingface_config(fields)
        case "timm" if "architecture" in fields:
            heads, depth = read_timm_config(fields)
        case _:
            return infer_config(converted.state, num_heads=num_heads)
    return replace(infer_config(converted.state, num_heads=heads), depth=depth)


def _fields_beside(file: Path) -> dict[str, Any]:
    """What the library's `config.json` says; nothing where there is none."""
    beside = file.parent / "config.json"
    if not beside.is_file():
        return {}
    try:
        fields: dict[str, Any] = json.loads(beside.read_text())
    except ValueError as error:
        raise ModelError(f"{beside} is no JSON", got=str(error)) from error
    return fields
