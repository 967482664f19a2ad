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

from curation.errors import ModelError
from pretrain.checkpoint_files import MARKER, fault_of, is_checkpoint
from pretrain.model.keys import Converted, check_fit, hollow_backbone, infer_config, to_official
from pretrain.model.keys_huggingface import read_huggingface_config
from pretrain.model.keys_timm import read_timm_config
from pretrain.model.vit import VisionTransformer, ViTConfig
from pretrain.pickled import read_pickled
from pretrain.weight_files import PICKLED, find_weights

METADATA_KEY = "vit"
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


def load_backbone(path: str | Path, *, num_heads: int | None = None) -> VisionTransformer:
    """The backbone at a path, ready for features: in fp32, on the CPU, in eval mode.

    Its shape is that of the file's own metadata; else that of `config.json` beside a file of Hugging Face or
    timm; else what the tensors tell, with heads of 64 channels (see `infer_config`). Heads and classifiers
    are left out. A file of timm has no mask token, which is then zeros.

    Args:
        path: see `pretrain.weight_files.find_weights`.
        num_heads: of the attention, for tensors without a config whose heads are not of 64 channels.

    Raises:
        ModelError: nothing is there, it cannot be read, it is a damaged checkpoint of ours, or it is not
            exactly one backbone; then every missing, unexpected or misshapen tensor is named.
    """
    file = find_weights(path)
    _require_proven(file)
    content, metadata = read_state(file)
    try:
        if METADATA_KEY in metadata:
            config = config_of_metadata(metadata)
            converted = to_official(content, "official")
        else:
            converted = to_official(content)
            config = _config_beside(file, converted, num_heads)
        _check_heads(config, num_heads)
        check_fit(converted.state, config)
    except ModelError as error:
        what = f"{file} cannot be loaded: {error.what[0].lower()}{error.what[1:]}"
        raise ModelError(what, got=error.got, expected=error.expected, remedy=error.remedy) from error
    model = hollow_backbone(config)
    # Copied, for a tensor may be a view of the file, which somebody may replace.
    copied = {name: tensor.to(torch.float32, copy=True) for name, tensor in converted.state.items()}
    model.load_state_dict(copied, assign=True)
    return model.eval()


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


def metadata_of_config(config: ViTConfig) -> dict[str, str]:
    """The metadata with which a `.safetensors` file of ours tells its model's shape."""
    return {"format": "pt", METADATA_KEY: json.dumps(asdict(config), sort_keys=True)}


def config_of_metadata(metadata: Mapping[str, str]) -> ViTConfig:
    """The shape that a file of ours tells in its metadata.

    Raises:
        ModelError: it is not such a shape, or has fields that this version does not know.
    """
    text = metadata[METADATA_KEY]
    try:
        fields = json.loads(text)
        if unknown := fields.keys() - ViTConfig.__dataclass_fields__.keys():
            raise ValueError(f"unknown fields {sorted(unknown)}")
        return TypeAdapter(ViTConfig).validate_python(fields)
    except (ValueError, AttributeError, ArithmeticError) as error:
        raise ModelError(
            f"The metadata {METADATA_KEY!r} is not the shape of a backbone",
            got=text[:1000],
            expected=f"an object with the fields {', '.join(ViTConfig.__dataclass_fields__)}",
            remedy="Read the file with the version of lvd that wrote it, or a later one",
        ) from error


def _check_heads(config: ViTConfig, num_heads: int | None) -> None:
    if num_heads not in (None, config.num_heads):
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
    beside = file.parent / "config.json"
    fields = {}
    if beside.is_file():
        try:
            fields = json.loads(beside.read_text())
        except ValueError as error:
            raise ModelError(f"{beside} is no JSON", got=str(error)) from error
    match converted.library:
        case "huggingface" if "model_type" in fields:
            heads, depth = read_huggingface_config(fields)
        case "timm" if "architecture" in fields:
            heads, depth = read_timm_config(fields)
        case _:
            return infer_config(converted.state, num_heads=num_heads)
    return replace(infer_config(converted.state, num_heads=heads), depth=depth)
