"""SSCD as its authors built it, on torchvision's and on Classy Vision's ResNet, written anew."""

import warnings
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import resnet50


class GlobalGeMPool2d(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.size()
        return x.reshape(n, c, h * w).clamp(min=1e-6).pow(3.0).mean(dim=2).pow(1.0 / 3.0)


class L2Norm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x)


class TorchvisionModel(nn.Module):
    """The classifier is the projection, and the pooling stands in the backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = resnet50(num_classes=512)
        self.backbone.avgpool = GlobalGeMPool2d()
        self.embeddings = L2Norm()

    def forward(self, x: Tensor) -> Tensor:
        return self.embeddings(self.backbone(x))


class ClassyBlock(nn.Module):
    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        mid = out // 4
        self.convolutional_block = nn.Sequential(
            nn.Conv2d(width, mid, 1, bias=False),
            nn.BatchNorm2d(mid),
            nn.ReLU(inplace=True),
            nn.Conv2d(mid, mid, 3, stride, 1, bias=False),
            nn.BatchNorm2d(mid),
            nn.ReLU(inplace=True),
            nn.Conv2d(mid, out, 1, bias=False),
        )
        self.bn = nn.BatchNorm2d(out)
        self.downsample = None
        if stride != 1 or width != out:
            self.downsample = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.downsample is None else self.downsample(x)
        return (self.bn(self.convolutional_block(x)) + residual).relu()


class ClassyStem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._module = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self._module(x)


class ClassyTrunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.initial_block = ClassyStem()
        stages, width = [], 64
        for stage, (depth, out) in enumerate(zip((3, 4, 6, 3), (256, 512, 1024, 2048), strict=True)):
            blocks = OrderedDict()
            for number in range(depth):
                stride = 2 if stage and not number else 1
                blocks[f"block{stage}-{number}"] = ClassyBlock(width, out, stride)
                width = out
            stages.append(nn.Sequential(blocks))
        self.blocks = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.initial_block(x))


class ClassyModel(nn.Module):
    """The pooling and the projection stand behind the backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ClassyTrunk()
        self.embeddings = nn.Sequential(GlobalGeMPool2d(), nn.Linear(2048, 512), L2Norm())

    def forward(self, x: Tensor) -> Tensor:
        return self.embeddings(self.backbone(x))


def settled(model: nn.Module) -> nn.Module:
    """Draw its batch norms and let them see pictures: else all descriptors of drawn weights are alike."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.2)
        norm.momentum = None  # the plain mean of what it sees
    pictures = nn.functional.interpolate(torch.randn(6, 3, 7, 7), size=(96, 96), mode="bicubic")
    with torch.no_grad():
        model.train()(pictures)
    return model.eval().requires_grad_(False)


def save_torchscript(model: nn.Module, path: Path, *, frozen: bool = False) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it is what was published
        traced = torch.jit.trace(model, torch.zeros(1, 3, 64, 64))
        torch.jit.save(torch.jit.freeze(traced) if frozen else traced, path)


def load_torchscript(path: Path) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.jit.load(path)
