"""What a training begins with: a backbone that was trained before, or another training's checkpoint whole."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from curation.errors import ConfigError, IntegrityError
from pretrain import checkpoint
from pretrain.anchor import Anchor
from pretrain.checkpoint_files import MARKER, fault_of, is_checkpoint, read_facts, step_dir
from pretrain.evaluate.guard import Start
from pretrain.identity import require_same
from pretrain.model.convnet import ConvNetConfig
from pretrain.model.network import BackboneConfig
from pretrain.model.positions import interpolate_positions
from pretrain.model.vit import ViTConfig
from pretrain.parallel import Place
from pretrain.start_config import StartConfig
from pretrain.train_step import State
from pretrain.weights import load_backbone


def begin_from(
    start: StartConfig, state: State, *, dataset: str, where: Place, warn: Callable[[str], None]
) -> None:
    """Let a training begin with a checkpoint of another one; positions are resampled to its grid.

    AdamW's moments of the positions are resampled as well, the second ones to no less than 0.

    Args:
        start: which one, and what of it.
        state: of the new training, with one student.
        dataset: digest of what it is trained on; on another one the order begins anew.
        where: this rank's place; every rank must call.
        warn: is told what a user may not expect.

    Raises:
        ConfigError: nothing is there, or it is of another model.
        IntegrityError: the checkpoint is damaged.
    """
    folder = agreed_checkpoint(Path(start.checkpoint), where, warn=warn)
    facts = read_facts(folder)
    [learner] = state.learners
    shape = learner.student.network.backbone.config
    _require_same_shape(folder, shape)
    try:
        state.centres = checkpoint.load(
            folder,
            student=learner.student.network,
            teacher=learner.mean.network,
            optimizer=learner.optimizer if start.optimizer else None,
            fit=lambda name, tensor: _fitted(name, tensor, shape),
        )
    except IntegrityError as error:
        raise ConfigError(
            f"{folder} holds other heads than this training has", got=error.got, expected="those of heads"
        ) from error
    if state.anchor is not None:
        _carry_over(state.anchor, folder, facts, fit=lambda name, tensor: _fitted(name, tensor, shape))
    if start.schedule == "go_on":
        state.step = facts["step"]
    state.first_step = state.step
    if start.order == "go_on" and facts["dataset"] == dataset:
        state.first_image = facts["images_seen"]
    elif start.order == "go_on":
        warn(f"{folder} was trained on other images: the order of these begins anew")
    state.parent = link_to(folder, facts)
    warn(f"begins with {folder}")


def _carry_over(
    anchor: Anchor, folder: Path, facts: dict[str, Any], *, fit: Callable[[str, Tensor], Tensor]
) -> None:
    """The Gram teacher of a checkpoint, unless the new training names one that the old one did not."""
    named, was = anchor.config.teacher, (facts["identity"].get("gram") or {}).get("teacher")
    if named in (None, was):
        anchor.load(folder, fit)


def begin_anchor(state: State) -> None:
    """Take the Gram teacher that the config names, for a training that has carried none over.

    Its positions are resampled to the grid of the teacher.

    Args:
        state: of a new training, with Gram anchoring or without.

    Raises:
        ConfigError, ModelError: as `start_from`.
    """
    anchor = state.anchor
    if anchor is not None and anchor.placed is None and anchor.config.teacher is not None:
        anchor.take(start_from(anchor.config.teacher, state.teacher.network.backbone.config))


def other_start(start: StartConfig, parent: dict[str, Any] | None) -> str | None:
    """What to tell of a training that goes on, and began with another path than its config names now."""
    named, began = Path(start.checkpoint).absolute(), Path(parent["path"]).absolute() if parent else None
    if began is not None and named in (began, began.parents[1]):
        return None
    return (
        f"it began with {began or 'weights at random'} and goes on with that: start.checkpoint "
        f"({start.checkpoint}) is read where a training begins, in a run_dir of its own"
    )


def link_to(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """What names a checkpoint: path, step, and the SHA-256 of its proof, which has those of its files."""
    digest = hashlib.sha256((folder / MARKER).read_bytes()).hexdigest()
    return {"path": str(folder.absolute()), "step": facts["step"], "sha256": digest}


def agreed_checkpoint(path: Path, where: Place, *, warn: Callable[[str], None]) -> Path:
    """The checkpoint that a path means, sound; the first rank looks, for all to take the same.

    Args:
        path: a run directory, for its newest sound one, or a checkpoint.
        where: this rank's place; every rank must call.
        warn: is told of those that are damaged.

    Raises:
        ConfigError: there is none.
        IntegrityError: it is damaged, or all are.
    """
    is_first = where.group.rank == 0
    error: ConfigError | IntegrityError | None = None
    step = 0
    if is_first:
        try:
            step = _sound_step(path, warn=warn)
        except (ConfigError, IntegrityError) as found:
            error, step = found, -1
    step = int(where.group.sum(torch.tensor(float(step), dtype=torch.float64, device=where.device)).item())
    if step < 0:
        # The first rank says what is wrong.
        raise error or ConfigError("There is nothing to begin with", got=str(path))
    return path if is_checkpoint(path) else step_dir(path, step)


def _sound_step(path: Path, *, warn: Callable[[str], None]) -> int:
    if is_checkpoint(path):
        if (fault := fault_of(path)) is not None:
            raise IntegrityError(
                f"The checkpoint {path} is damaged",
                got=fault,
                remedy="Give an earlier one, or the run directory, of which the newest sound one is taken",
            )
        return int(read_facts(path)["step"])
    found = checkpoint.newest_common([path], warn=warn)
    if found is None:
        raise ConfigError(
            "There is no checkpoint to begin with",
            got=str(path),
            expected="a run directory of a training, or one of its checkpoints/step-…",
        )
    return found


def _require_same_shape(folder: Path, shape: BackboneConfig) -> None:
    if not _fits(found := checkpoint.shape_of(folder), shape):
        raise _another(folder, found, shape)


def _fits(found: BackboneConfig, asked: BackboneConfig) -> bool:
    """Whether the weights of one shape can be those of another, once positions are resampled."""
    match found, asked:
        case ViTConfig(), ViTConfig():
            return asked == replace(
                found, grid=asked.grid, layer_scale=asked.layer_scale, drop_path=asked.drop_path
            )
        case ConvNetConfig(), ConvNetConfig():
            return (found.name, found.channels) == (asked.name, asked.channels)
        case _:
            return False


def _another(path: str | Path, found: BackboneConfig, asked: BackboneConfig) -> ConfigError:
    return ConfigError(f"{path} holds another backbone than model asks for", got=found, expected=asked)


def _fitted(name: str, tensor: Tensor, shape: BackboneConfig) -> Tensor:
    """A tensor of a checkpoint, or of AdamW's moments, for a model of this shape."""
    if not name.endswith("backbone.pos_embed") or not isinstance(shape, ViTConfig):
        return tensor
    resampled = resampled_positions(tensor, shape)
    return resampled.clamp(min=0) if name.startswith("exp_avg_sq.") else resampled


def resampled_positions(positions: Tensor, shape: ViTConfig) -> Tensor:
    """Position embeddings (1, 1 + n, dim) on the grid of a shape; that of the class token stays."""
    patches = interpolate_positions(
        positions[:, 1:],
        (shape.grid, shape.grid),
        offset=shape.position_offset,
        antialias=shape.position_antialias,
    )
    return torch.cat([positions[:, :1], patches], dim=1)


def start_from(path: str, shape: BackboneConfig, *, inflate: bool = False) -> dict[str, Tensor]:
    """The weights of a trained backbone for a model of this shape; positions are resampled to its grid.

    Args:
        path: a checkpoint of ours, or a file of the official, Hugging Face's or timm's kind; of a
            convolutional network one of ours or of timm's.
        shape: of the model that takes them.
        inflate: whether it may take another number of channels (see `inflated`).

    Raises:
        ConfigError: when the file holds another architecture.
        ModelError: when it does not cover the model that it holds.
    """
    backbone = load_backbone(path, convnet=shape if isinstance(shape, ConvNetConfig) else None)
    found = backbone.config
    if isinstance(shape, ConvNetConfig) or isinstance(found, ConvNetConfig):
        if not _fits(found, shape):
            raise _another(path, found, shape)
        return dict(backbone.state_dict())
    if found.channels != shape.channels and not inflate:
        raise ConfigError(
            f"{path} takes another number of channels than model.channels",
            got=found.channels,
            expected=shape.channels,
            remedy="Set model.inflate to begin every channel with the mean of its channels",
        )
    if not _fits(replace(found, channels=shape.channels), shape):
        raise _another(path, found, shape)
    state = dict(backbone.state_dict())
    first = "patch_embed.proj.weight"
    state[first] = inflated(state[first], shape.channels)
    return {**state, "pos_embed": resampled_positions(state["pos_embed"], shape)}


def inflated(
    weight: Float[Tensor, "dim from_channels patch patch"], channels: int
) -> Float[Tensor, "dim channels patch patch"]:
    """The patch embedding for another number of channels; as it is for the same number.

    Each channel has the mean of all that there were, scaled so that a picture that is alike in all channels
    gives what it gave.

    Args:
        weight: of the convolution.
        channels: wanted.
    """
    if weight.shape[1] == channels:
        return weight
    mean = weight.mean(dim=1, keepdim=True) * (weight.shape[1] / channels)
    return mean.repeat(1, channels, 1, 1)


def resume(state: State, step: int, identity: dict[str, object], where: Place) -> list[str]:
    """Set a training as its checkpoints after `step` iterations have it.

    Returns:
        What to tell people.

    Raises:
        ConfigError: when they were written by another training.
    """
    folders = [step_dir(learner.folder, step) for learner in state.learners]
    facts = [read_facts(folder) for folder in folders]
    for folder, found in zip(folders, facts, strict=True):
        require_same(found["identity"], identity, folder, step=step)
    for learner, folder, found in zip(state.learners, folders, facts, strict=True):
        state.centres = checkpoint.load(
            folder,
            student=learner.student.network,
            teacher=learner.mean.network,
            optimizer=learner.optimizer,
        )
        learner.num_skipped = found["num_skipped"]
        learner.at_start = Start(**found["measured_at_start"]) if found.get("measured_at_start") else None
    if state.anchor is not None:
        state.anchor.load(folders[0])
    state.step, state.parent = step, facts[0]["parent"]
    state.first_step, state.first_image = facts[0]["first_step"], facts[0]["first_image"]
    told = [f"going on from {folder}" for folder in folders]
    if facts[0]["num_ranks"] != where.group.size:
        told.append(
            f"{where.group.size} ranks go on for {facts[0]['num_ranks']}, with the same images and crops; "
            "masks and stochastic depth are drawn for each rank's part, and will be others"
        )
    return told
