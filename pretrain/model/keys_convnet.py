"""Tensor names and `config.json` of timm's ResNets and ConvNeXts.

Ours are `stem.…`, `blocks.I.layers.…` and, of a ConvNeXt, `norm.…`; timm's are `conv1.…`, `bn1.…`, `layer1.…`
of a ResNet, and `stem.…`, `stages.0.…`, `head.norm.…` of a ConvNeXt. timm also counts the batches of a batch
normalisation, which nothing here reads, and has a classifier.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from curation.errors import ModelError
from pretrain.model.convnet import ConvNetConfig
from pretrain.model.keys_official import BACKBONE, WRAPPERS, flatten, is_training_dump, renamed
from pretrain.model.keys_timm import CROP_FRACTION, IMAGENET_MEAN, IMAGENET_STD

BLOCK = re.compile(r"blocks\.(\d+)\.layers\.")
LAYER = re.compile(r"layer([1-4])\.")
STAGE = re.compile(r"stages\.(\d+)\.")
FIRST_STAGE = re.compile(r"^(?:module\.)?(?:layer1\.0\.conv1|stages\.0\.blocks\.0\.conv_dw)\.")
COUNTER = "num_batches_tracked"
CLASSIFIERS = ("fc.", "head.fc.")
# Arguments that change no feature, or that the tensors show.
HARMLESS_ARGS = {"in_chans", "num_classes", "drop_rate", "drop_path_rate", "global_pool"}
OWN_STRIDE_PX = 32  # of the last map of either family


def is_timm_convnet(content: Mapping[Any, Any]) -> bool:
    """Whether a file holds a ResNet or a ConvNeXt under timm's names."""
    inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), content)
    return any(FIRST_STAGE.search(name) for name in inner if isinstance(name, str))


def own_convnet(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The backbone of a file of ours, without heads.

    Raises:
        ModelError: the file holds something else than tensors.
    """
    flat = flatten(content)
    if not is_training_dump(flat):
        return flat
    return {n.removeprefix(BACKBONE): tensor for n, tensor in flat.items() if n.startswith(BACKBONE)}


def from_timm_convnet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names for timm's; the classifier and the counters of batches are left out.

    Args:
        state: of a ResNet or a ConvNeXt under timm's names.
    """
    kept = {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith(CLASSIFIERS) and not name.endswith(COUNTER)
    }
    rename = _own_resnet_name if any(LAYER.match(name) for name in kept) else _own_convnext_name
    return renamed(kept, rename)


def to_timm_convnet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """timm's names for ours; a counter of batches, at 0, for each batch normalisation.

    Args:
        state: of a whole `ConvNet`.
    """
    is_resnet = any(name.startswith("stem.conv1.") for name in state)
    made = renamed(state, _timm_resnet_name if is_resnet else _timm_convnext_name)
    norms = [name.removesuffix("running_var") for name in made if name.endswith("running_var")]
    return made | {f"{norm}{COUNTER}": torch.zeros((), dtype=torch.long) for norm in norms}


def timm_convnet_config(config: ConvNetConfig) -> dict[str, object]:
    """The `config.json` of such a model, for `local-dir:` and the hub.

    The virtual patch is no part of it: timm's model gives its last map as it is.
    """
    side_px = config.grid * config.patch_px
    return {
        "architecture": config.name,
        "num_classes": 0,
        "num_features": config.dim,
        "global_pool": "avg",
        "pretrained_cfg": {
            "input_size": [config.channels, side_px, side_px],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": CROP_FRACTION,
            "crop_mode": "center",
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
            "num_classes": 0,
            "custom_load": False,
        },
    }


def read_timm_convnet_config(fields: Mapping[str, Any]) -> ConvNetConfig:
    """The shape that a `config.json` of timm tells; its virtual patch is the stride of the last map.

    Raises:
        ModelError: it changes the architecture that it names.
    """
    args = fields.get("model_args") or {}
    if args.keys() - HARMLESS_ARGS or args.get("global_pool", "avg") != "avg":
        raise ModelError(
            "config.json describes a model that is not built here",
            got=f"architecture {fields['architecture']} with model_args {args}",
            expected=f"no model_args but {', '.join(sorted(HARMLESS_ARGS))}, and a mean as the pool",
        )
    # Older files have the fields of `pretrained_cfg` beside the architecture.
    size = (fields.get("pretrained_cfg") or fields).get("input_size") or (3, 224, 224)
    return ConvNetConfig(
        fields["architecture"].partition(".")[0],
        patch_px=OWN_STRIDE_PX,
        grid=max(int(size[1]) // OWN_STRIDE_PX, 1),
        channels=int(args.get("in_chans", size[0])),
    )


def _own_resnet_name(name: str) -> str:
    found = LAYER.match(name)
    return f"blocks.{int(found[1]) - 1}.layers.{name[found.end() :]}" if found else f"stem.{name}"


def _own_convnext_name(name: str) -> str:
    name = name.removeprefix("head.") if name.startswith("head.norm.") else name
    return STAGE.sub(r"blocks.\1.layers.", name, count=1)


def _timm_resnet_name(name: str) -> str:
    found = BLOCK.match(name)
    return f"layer{int(found[1]) + 1}.{name[found.end() :]}" if found else name.removeprefix("stem.")


def _timm_convnext_name(name: str) -> str:
    name = f"head.{name}" if name.startswith("norm.") else name
    return BLOCK.sub(r"stages.\1.", name, count=1)
