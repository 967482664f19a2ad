"""Go on from a backbone that was trained before."""

from dataclasses import replace

import torch
from torch import Tensor

from curation.errors import ConfigError
from pretrain.model.convnet import ConvNetConfig
from pretrain.model.network import BackboneConfig
from pretrain.model.positions import interpolate_positions
from pretrain.weights import load_backbone


def start_from(path: str, shape: BackboneConfig) -> dict[str, Tensor]:
    """The weights of a trained backbone for a model of this shape; positions are resampled to its grid.

    Args:
        path: a checkpoint of ours, or a file of the official, Hugging Face's or timm's kind; for a
            convolutional network ours or timm's.
        shape: of the model that takes them.

    Raises:
        ConfigError: when the file holds another architecture.
        ModelError: when it does not cover the model that it holds.
    """
    if isinstance(shape, ConvNetConfig):
        return _start_convnet(path, shape)
    backbone = load_backbone(path)
    config = backbone.config
    if isinstance(config, ConvNetConfig) or shape != replace(
        config, grid=shape.grid, layer_scale=shape.layer_scale, drop_path=shape.drop_path
    ):
        raise _another(path, config, shape)
    state = dict(backbone.state_dict())
    positions = state["pos_embed"]
    patches = interpolate_positions(
        positions[:, 1:],
        (shape.grid, shape.grid),
        offset=shape.position_offset,
        antialias=shape.position_antialias,
    )
    return {**state, "pos_embed": torch.cat([positions[:, :1], patches], dim=1)}


def _start_convnet(path: str, shape: ConvNetConfig) -> dict[str, Tensor]:
    backbone = load_backbone(path, convnet=shape)
    found = backbone.config
    if not isinstance(found, ConvNetConfig) or (found.name, found.channels) != (shape.name, shape.channels):
        raise _another(path, found, shape)
    return dict(backbone.state_dict())


def _another(path: str, found: BackboneConfig, asked: BackboneConfig) -> ConfigError:
    return ConfigError(f"{path} holds another backbone than model asks for", got=found, expected=asked)
