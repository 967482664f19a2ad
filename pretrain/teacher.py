"""The frozen teacher of a distillation: where it comes from, whether it has heads, and what names it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import safe_open
from torch import Tensor

from curation.errors import ConfigError, ModelError
from pretrain.checkpoint_files import TEACHER, is_checkpoint, proof_of, read_facts
from pretrain.model.heads import HeadConfig
from pretrain.model.hollow import hollow
from pretrain.model.keys import check_shapes
from pretrain.model.keys_official import flatten, heads_of
from pretrain.model.network import Backbone, Network
from pretrain.parallel import Place
from pretrain.start import agreed_checkpoint, link_to
from pretrain.targets import Centres
from pretrain.weight_files import CHECKPOINTS, find_weights, trained_dir
from pretrain.weights import load_backbone, read_state

HeadsChoice = Literal["auto", "carried", "none"]


class TeacherConfig(BaseModel):
    """The frozen teacher of a distillation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(
        description="a run directory of a training, for its newest checkpoint; a checkpoint of it; or a "
        "backbone of the official, Hugging Face's or timm's kind"
    )
    heads: HeadsChoice = Field(
        "auto",
        description="carried: its heads make the targets, and must be there; none: the students predict its "
        "features; auto: carried where it has heads",
    )


@dataclass(frozen=True)
class Teacher:
    """What is distilled from.

    Attributes:
        network: in eval mode and frozen, fp32, on the CPU; with heads, or with a backbone alone.
        centres: of its training, where they are there.
        link: path, step, SHA-256: of the proof of a checkpoint of ours, or of the weights file.
    """

    network: Network
    centres: Centres | None
    link: dict[str, Any]

    @property
    def has_heads(self) -> bool:
        """Whether its heads make the targets."""
        return self.network.dino_head is not None

    def story(self) -> str:
        """Which loss was chosen, and why, for people."""
        name = self.link["path"]
        if self.network.dino_head is None:
            return (
                f"the teacher {name} has no heads, or none that are asked for: the students predict its "
                "features, through a linear layer that is thrown away. Heads for it would have to be trained "
                "first"
            )
        num = [head.config.prototypes for head in self.network.heads]
        return (
            f"the teacher {name} has heads: its scores for {num[0]:,} prototypes of images and {num[1]:,} of "
            "patches are the targets, as in DINOv2's distillation"
        )


def load_teacher(config: TeacherConfig, where: Place, *, warn: Callable[[str], None]) -> Teacher:
    """Load a teacher; every rank must call.

    Args:
        config: which one.
        where: this rank's place.
        warn: is told of damaged checkpoints that are passed over.

    Raises:
        ConfigError: nothing is there, or heads are asked for where there are none.
        IntegrityError: the checkpoint is damaged.
        ModelError: the weights cannot be loaded.
    """
    path = trained_dir(Path(config.path))
    if path.is_file() and is_checkpoint(path.parent) and path.name == TEACHER:
        path = path.parent
    if is_checkpoint(path) or (path / CHECKPOINTS).is_dir():
        folder = agreed_checkpoint(path, where, warn=warn)
        network = _network(folder, config.heads)
        return Teacher(network, _centres(folder, network), link_to(folder, read_facts(folder)))
    return Teacher(_network(path, config.heads), None, _link_to_file(find_weights(path)))


def _network(path: Path, choice: HeadsChoice) -> Network:
    backbone = load_backbone(path)
    heads = {} if choice == "none" else _heads(find_weights(path), backbone)
    if choice == "carried" and not heads:
        raise ConfigError(
            f"{path} has no heads",
            got="teacher.heads: carried",
            expected="a checkpoint of a training, which has dino_head.… beside its backbone",
            remedy="Set teacher.heads to none (or auto): the students then predict its features",
        )
    shapes = [_head_shape(heads, name) for name in ("dino_head", "ibot_head")]
    with hollow():
        network = Network(backbone.config, shapes[0], shapes[1] if shapes[0] else None)
    own = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    shape_of = {name: tuple(x.shape) for name, x in network.state_dict().items() if name not in own}
    check_shapes(heads, shape_of, what=f"the heads of {path}")
    network.load_state_dict({**own, **heads}, assign=True)
    return network.eval().requires_grad_(False)


def _heads(file: Path, backbone: Backbone) -> dict[str, Tensor]:
    content, _ = read_state(file)
    heads = heads_of(flatten(content))
    dims = {x.shape[1] for name, x in heads.items() if name.endswith("_head.mlp.0.weight")}
    if heads and dims != {backbone.config.dim}:
        raise ModelError(
            f"The heads in {file} are not of its backbone",
            got=f"input of {sorted(dims)}",
            expected=f"{backbone.config.dim}",
            remedy="Set teacher.heads to none: the students then predict its features",
        )
    return {name: tensor.to(torch.float32, copy=True) for name, tensor in heads.items()}


def _head_shape(heads: dict[str, Tensor], name: str) -> HeadConfig | None:
    first, last = heads.get(f"{name}.mlp.0.weight"), heads.get(f"{name}.last_layer.weight_v")
    if first is None or last is None:
        return None  # what else there is of it is then named as not expected
    return HeadConfig(first.shape[1], last.shape[0], first.shape[0], last.shape[1])


def _centres(folder: Path, network: Network) -> Centres | None:
    if network.dino_head is None:
        return None
    with safe_open(folder / "training.safetensors", "pt") as file:
        return Centres(*(file.get_tensor(f"centre.{field}") for field in Centres._fields))


def _link_to_file(file: Path) -> dict[str, Any]:
    """Of a model in several files the hash of their hashes."""
    digest = str(proof_of(file)["sha256"])
    if file.name.endswith(".index.json"):
        names = sorted(set(json.loads(file.read_text())["weight_map"].values()))
        parts = [digest, *(str(proof_of(file.parent / name)["sha256"]) for name in names)]
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return {"path": str(file), "step": None, "sha256": digest}
