"""SSCD, a descriptor in which copies lie close: the maps of a ResNet, pooled, projected, of unit length.

The trunk is a library's; what stands here is what SSCD puts on top of it, the names that the published files
have for the same tensors, and the whitening that the authors advise where pictures of the target are at hand.

Source: arXiv:2202.10261, §3 and §4.1 (whitening).
"""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn.functional import normalize

from curation.errors import ModelError
from curation.pictures.views import View

GEM_POWER = 3.0
GEM_FLOOR = 1e-6
SIDE_PX = 288
DEFAULT_DIM = 512

# A published file has Classy Vision's names or torchvision's; ours are torchvision's below `trunk.`.
PREFIXES = (
    ("backbone.initial_block._module.0.", "trunk.conv1."),
    ("backbone.initial_block._module.1.", "trunk.bn1."),
    ("embeddings.1.", "head.linear."),
    ("backbone.fc.", "head.linear."),
    ("backbone.", "trunk."),
)
CLASSY_BLOCK = re.compile(
    r"backbone\.blocks\.(\d)\.block\d-(\d+)\.(convolutional_block\.\d|bn|downsample\.\d)\.(\w+)"
)
THIRD_STAGE = re.compile(r"trunk\.layer3\.(\d+)\.")
CLASSY_PARTS = {
    "convolutional_block.0": "conv1",
    "convolutional_block.1": "bn1",
    "convolutional_block.3": "conv2",
    "convolutional_block.4": "bn2",
    "convolutional_block.6": "conv3",
    "bn": "bn3",
}


class Whitening(NamedTuple):
    """An affine map of descriptors, y = weight · x + bias, as in a linear transform of FAISS."""

    weight: Float32[np.ndarray, "e d"]
    bias: Float32[np.ndarray, " e"]


class SscdHead(nn.Module):
    """Maps to descriptors.

    g = (mean over places of max(x, 1e-6)³)^(1/3), d = (W g + b) / |W g + b|; with a whitening also
    w = (A d + c) / |A d + c|.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, dim)
        self.whitening: nn.Linear | None = None

    def forward(self, maps: Float[Tensor, "n width h w"]) -> Float[Tensor, "n dim"]:
        """Unit rows; the gradient flows through all of it."""
        pooled = maps.flatten(2).clamp(min=GEM_FLOOR).pow(GEM_POWER).mean(dim=2).pow(1 / GEM_POWER)
        descriptors = normalize(self.linear(pooled))
        return descriptors if self.whitening is None else normalize(self.whitening(descriptors))


class Sscd(nn.Module):
    """The whole: a trunk that gives maps, and the head.

    Args:
        trunk: images (n, 3, s, s), normalised, to maps (n, width, h, w), not negative; its tensors have
            torchvision's names.
        width: channels of the maps.
        dim: length of a descriptor.
    """

    def __init__(self, trunk: nn.Module, *, width: int = 2048, dim: int = DEFAULT_DIM) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = SscdHead(width, dim)

    def forward(self, images: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n dim"]:
        """Descriptors of a batch of normalised images."""
        descriptors: Tensor = self.head(self.trunk(images))
        return descriptors


def sscd_view(image_size_px: int | None) -> View:
    """The whole picture, squashed to a square, as the authors advise for batches of one shape.

    Their other way, the short side at 288 px and the aspect kept, gives every picture a shape of its own; a
    cut of it to a square would lose the borders, by which a copy may be known.
    """
    return View(image_size_px or SIDE_PX, "squash", "bilinear")


def own_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of a file's tensors to the names that they have here; the counters of batch norms are left out.

    Args:
        state: tensors of a published file of either layout, or of `Sscd.state_dict()`.
    """
    return {name: _own_name(name) for name in state if not name.endswith(".num_batches_tracked")}


def trunk_of(state: Mapping[str, Tensor]) -> Literal["resnet50", "resnext101_32x4d"]:
    """Which trunk these tensors, under our names, are of: the two that were published."""
    numbers = [int(found[1]) for name in state if (found := THIRD_STAGE.match(name))]
    return "resnext101_32x4d" if max(numbers, default=0) >= 6 else "resnet50"  # 23 blocks against 6


def fit_whitening(descriptors: Float[np.ndarray, "n d"], *, dim: int | None = None) -> Whitening:
    """The PCA whitening of a sample: its mean becomes zero, its covariance the identity.

    Args:
        descriptors: a sample of the target pictures, better several tens of thousands than few.
        dim: principal directions to keep; all where None.

    Returns:
        The map to the `dim` strongest directions; apply it, then scale to unit length.

    Raises:
        ModelError: the sample spans fewer directions.

    Source: arXiv:2202.10261, §4.1; FAISS' `PCAW<dim>,L2norm`.
    """
    rows = descriptors.astype(np.float64)
    rows = rows[rows.any(axis=1)]  # a row of zeros is no descriptor
    keep = descriptors.shape[1] if dim is None else dim
    mean = rows.mean(axis=0) if len(rows) else np.zeros(descriptors.shape[1])
    covariance = (rows - mean).T @ (rows - mean) / max(len(rows), 1)
    variances, directions = np.linalg.eigh(covariance)  # in ascending order
    spanned = int((variances > np.finfo(np.float32).eps * max(variances[-1], 0)).sum())
    if not 1 <= keep <= spanned:
        raise ModelError(
            "A whitening cannot be fitted",
            got=f"{len(rows)} descriptors that span {spanned} directions",
            expected=f"at least {keep} directions, and no more than {descriptors.shape[1]} asked for",
            remedy="Give a larger sample, or keep fewer directions",
        )
    strongest = slice(None, -keep - 1, -1)
    weight = (directions[:, strongest] / np.sqrt(variances[strongest])).T
    # In C order: safetensors would write the memory as it lies.
    return Whitening(weight.astype(np.float32, order="C"), (-weight @ mean).astype(np.float32))


def _own_name(name: str) -> str:
    if found := CLASSY_BLOCK.fullmatch(name):
        stage, block, part, kind = found.groups()
        return f"trunk.layer{int(stage) + 1}.{block}.{CLASSY_PARTS.get(part, part)}.{kind}"
    for theirs, ours in PREFIXES:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name
