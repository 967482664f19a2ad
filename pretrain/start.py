"""Go on from a backbone that was trained before."""

from dataclasses import replace

import torch
from torch import Tensor

from curation.errors import ConfigError
from pretrain.model.positions import interpolate_positions
from pretrain.model.vit import ViTConfig
from pretrain.weights import load_backbone


def start_from(path: str, shape: ViTConfig) -> dict[str, Tensor]:
    """The weights of a trained backbone for a model of this shape; positions are resampled to its grid.

    Args:
        path: a checkpoint of ours, or a file of the official, Hugging Face's or timm's kind.
        shape: of the model that takes them.

    Raises:
        ConfigError: when the file holds another architecture.
        ModelError: when it does not cover the model that it holds.
    """
    backbone = load_backbone(path)
    same = replace(backbone.config, grid=shape.grid, layer_scale=shape.layer_scale, drop_path=shape.drop_path)
    if same != shape:
        raise ConfigError(
            f"{path} holds another backbone than model asks for", got=backbone.config, expected=shape
        )
    state = dict(backbone.state_dict())
    positions = state["pos_embed"]
    patches = interpolate_positions(
        positions[:, 1:],
        (shape.grid, shape.grid),
        offset=shape.position_offset,
        antialias=shape.position_antialias,
    )
    return {**state, "pos_embed": torch.cat([positions[:, :1], patches], dim=1)}
