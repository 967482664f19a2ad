"""A convolutional network for timm: a directory under timm's own names."""

import json
from pathlib import Path

import torch

from curation.errors import ModelError
from pretrain.model.convnet import ConvNet, ConvNetConfig
from pretrain.model.keys_convnet import timm_convnet_config, to_timm_convnet
from pretrain.model.keys_timm import IMAGENET_MEAN
from pretrain.tensor_files import save_file


def write_timm_convnet(model: ConvNet, folder: Path) -> None:
    """A directory that `timm.create_model("local-dir:DIR", pretrained=True)` opens."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(timm_convnet_config(model.config), indent=2) + "\n")
    state = {
        # Each tensor in memory of its own, as the file wants it.
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in to_timm_convnet(model.state_dict()).items()
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def check_convnet_format(config: ConvNetConfig, kind: str) -> None:
    """Raise where a format has no place for a convolutional network.

    Raises:
        ModelError: it is a format of vision transformers, or timm's and the input is not RGB.
    """
    if kind in ("huggingface", "official"):
        raise ModelError(
            f"The {kind} format is one of vision transformers",
            got=f"the convolutional network {config.name}",
            expected="timm or safetensors",
            remedy="Export as timm: its directory opens with timm.create_model",
        )
    if kind == "timm" and config.channels != len(IMAGENET_MEAN):
        raise ModelError(
            "The timm format cannot say the normalisation of other images than RGB",
            got=f"{config.channels} channels",
            expected="3 channels",
            remedy="Export as safetensors, which keeps the whole config",
        )
