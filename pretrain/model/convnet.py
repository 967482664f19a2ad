"""Convolutional networks of timm with the interface of our vision transformer: ResNets and ConvNeXts.

A ResNet here is a model of timm's class `ResNet` (`resnet50`, `resnext50_32x4d`, `seresnet50`, …), a ConvNeXt
one of its class `ConvNeXt` (`convnext_tiny`, `convnextv2_atto`, …). Both are taken apart into a stem, four
stages and a final norm, and computed as timm does.
"""

import difflib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from curation.errors import ConfigError
from pretrain.model.batch_norm import BatchNorm, with_own_batch_norms
from pretrain.model.hollow import hollow
from pretrain.model.vit import Features

NUM_STAGES = 4
# The stride of the last stage. Of less a ConvNeXt has no place left, and a ResNet strides over a single one,
# where torch's bf16 convolution on a CPU makes gradients of memory that nobody wrote (seen with 2.14).
MIN_PX = 32


@dataclass(frozen=True, slots=True)
class ConvNetConfig:
    """The shape of a convolutional network: all that its weights need to be understood.

    Attributes:
        name: of the model in timm.
        patch_px: side of a virtual patch. The last feature map is resampled to the grid of these patches, so
            that each has features beside those of a vision transformer's patch. A network has no patches of
            its own, and computes the same for any value.
        grid: rows and columns of virtual patches of the images that it was trained on.
        channels: of the input.
        drop_path: share of the images for which the last residual branch is left out in training; it grows
            linearly from 0 at the first, as in timm.
    """

    name: str
    patch_px: int = 16
    grid: int = 14
    channels: int = 3
    drop_path: float = 0.0

    @property
    def dim(self) -> int:
        """Channels of the features."""
        return _dim_of(self.name)

    @property
    def depth(self) -> int:
        """Number of stages: what counts as a layer where the learning rate falls with depth."""
        return NUM_STAGES


class Stage(nn.Module):
    """A stage of residual blocks, of groups of feature maps, as a `Block` is one of groups of tokens."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, groups: Sequence[Float[Tensor, "_ _ _ _"]]) -> list[Tensor]:
        """Each group by itself: batch normalisation takes the statistics of one size of crops at a time."""
        return [self.layers(group) for group in groups]


class ConvNet(nn.Module):
    """A convolutional network of timm: a stem, four stages, and for a ConvNeXt a norm.

    The class token is the mean of the last feature map; for a ConvNeXt normalised, as before timm's
    classifier. A patch is a place of that map, resampled to the grid of virtual patches and normalised alike.
    There are no registers, and no mask token.

    Source: ResNet: arXiv:1512.03385; ConvNeXt: arXiv:2201.03545; as students: arXiv:2508.10104, §5.2.
    """

    def __init__(self, config: ConvNetConfig) -> None:
        super().__init__()
        self.config = config
        net = _timm_model(config.name, channels=config.channels, drop_path=config.drop_path)
        self.stem, stages, self.norm = _parts_of(net, config.name)
        self.blocks = nn.ModuleList(Stage(stage) for stage in stages)

    def forward(
        self,
        groups: Sequence[Float[Tensor, "_ c _ _"]],
        masks: Sequence[Bool[Tensor, "_ _"] | None] | None = None,
    ) -> list[Features]:
        """Features of each group of images.

        Args:
            groups: normalised images; within a group all of one size, in px a multiple of the virtual patch.
            masks: None, or a None for each group: there is no token to put in a patch's place.

        Raises:
            ValueError: when a size is no multiple of the virtual patch or too small, or a patch is masked.
        """
        if masks is not None and any(mask is not None for mask in masks):
            raise ValueError(f"{self.config.name} has no mask token to put in the place of a patch")
        grids = [self._grid_of(images) for images in groups]
        # `len` would fix the number of images in a graph that torch.export traces.
        maps = [self.stem(images) for images in groups if images.shape[0] > 0]
        for block in self.blocks:
            maps = block(maps)
        # Batch statistics of no image do not exist, so an empty group passes all of it by.
        left = iter(maps)
        tokens = [
            _tokens(next(left), grid) if images.shape[0] > 0 else _no_tokens(images, grid, self.config.dim)
            for images, grid in zip(groups, grids, strict=True)
        ]
        return [self._features(group) for group in tokens]

    def _features(self, tokens: Float[Tensor, "b t dim"]) -> Features:
        normed = self.norm(tokens)
        return Features(normed[:, 0], normed[:, 1:1], normed[:, 1:], tokens)

    def _grid_of(self, images: Tensor) -> tuple[int, int]:
        height, width = images.shape[-2:]
        side = self.config.patch_px
        if height % side or width % side:
            raise ValueError(
                f"Images of {height} × {width} px cannot be cut into virtual patches of {side} px: "
                "both sides must be multiples of it"
            )
        if min(height, width) < MIN_PX:
            raise ValueError(
                f"Images of {height} × {width} px are too small for {self.config.name}, "
                f"which takes {MIN_PX} px and more"
            )
        return height // side, width // side


def _tokens(map_: Float[Tensor, "b dim h w"], grid: tuple[int, int]) -> Float[Tensor, "b t dim"]:
    """The mean of a feature map, then its places on another grid, row by row."""
    places = map_
    if map_.shape[-2:] != grid:
        places = nn.functional.interpolate(map_.float(), size=grid, mode="bilinear", antialias=True)
    return torch.cat([map_.mean((2, 3))[:, None], places.to(map_.dtype).flatten(2).mT], dim=1)


def _no_tokens(images: Tensor, grid: tuple[int, int], dim: int) -> Tensor:
    return images.new_zeros(0, 1 + grid[0] * grid[1], dim)


def _timm_model(name: str, *, channels: int, drop_path: float) -> Any:
    """A model as timm makes it, with weights at random.

    Raises:
        ConfigError: it has no such ResNet or ConvNeXt; those that come near are named.
    """
    import timm  # seconds, for this alone

    known = [name for module in ("resnet", "convnext") for name in timm.list_models(module=module)]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
        raise ConfigError(
            f"timm {timm.__version__} has no ResNet and no ConvNeXt of this name",
            got=name,
            expected=", ".join(near) or "one such as resnet50 or convnext_tiny",
        )
    return timm.create_model(
        name, pretrained=False, num_classes=0, in_chans=channels, drop_path_rate=drop_path
    )


def _parts_of(net: Any, name: str) -> tuple[nn.Module, list[nn.Module], nn.Module]:
    """Stem, stages and final norm.

    Raises:
        ConfigError: it is no ResNet and no ConvNeXt, or one whose parts are of an unusual kind.
    """
    from timm.layers.classifier import NormMlpClassifierHead
    from timm.layers.norm import LayerNorm2d
    from timm.models.convnext import ConvNeXt
    from timm.models.resnet import ResNet

    stages: list[nn.Module]
    norm: nn.Module = nn.Identity()
    match net:
        case ResNet(global_pool=pool) if pool.pool_type == "avg":
            parts = OrderedDict(conv1=net.conv1, bn1=net.bn1, act1=net.act1, maxpool=net.maxpool)
            stem: nn.Module = nn.Sequential(parts)
            stages = [net.get_submodule(f"layer{number}") for number in range(1, 1 + NUM_STAGES)]
        case ConvNeXt(head=NormMlpClassifierHead(norm=LayerNorm2d() as last, hidden_size=None)):
            stem, stages, norm = net.stem, list(net.stages), _layer_norm(last)
        case _:
            raise _unsupported(name, f"a {type(net).__name__} with another pooling or norm at its end")
    try:
        with_own_batch_norms(nn.ModuleList([stem, *stages]))
    except ValueError as error:
        raise _unsupported(name, str(error)) from error
    if others := [n for part in (stem, *stages) for n in _other_buffers(part)]:
        raise _unsupported(name, f"buffers {', '.join(others[:3])}")
    return stem, stages, norm


def _other_buffers(part: nn.Module) -> list[str]:
    """Buffers that are no statistics: filters, which neither a mean nor a checkpoint would carry rightly."""
    return [
        f"{path}.{name}"
        for path, module in part.named_modules()
        if not isinstance(module, BatchNorm)
        for name, _ in module.named_buffers(recurse=False)
    ]


def _layer_norm(norm: Any) -> nn.LayerNorm:
    """The same norm for tokens instead of maps."""
    made = nn.LayerNorm(norm.normalized_shape, eps=norm.eps)
    made.weight, made.bias = norm.weight, norm.bias
    return made


@lru_cache
def _dim_of(name: str) -> int:
    with hollow():
        return _dim(_timm_model(name, channels=3, drop_path=0.0))


def _dim(net: Any) -> int:
    return int(net.num_features)


def _unsupported(name: str, what: str) -> ConfigError:
    return ConfigError(
        f"The model {name} of timm is not one that is trained here",
        got=what,
        expected="a ResNet that ends in a mean, or a ConvNeXt whose norm is a LayerNorm after the mean",
        remedy="Take one such as timm:resnet50 or timm:convnext_tiny",
    )
