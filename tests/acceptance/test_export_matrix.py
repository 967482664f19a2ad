"""Graphs of every kind of backbone, loaded again: the model's features at several sizes of image."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from drawn_vit import drawn, randomise, small
from safetensors.torch import save_file
from torch import Tensor, nn

from pretrain.export import export
from pretrain.export_onnx import ONNX_BOUND, open_onnx, write_onnx
from pretrain.export_program import PROGRAM_BOUND, FeatureModel, Input, Run, write_program
from pretrain.model.vit import Features
from pretrain.weights import metadata_of_config

pytestmark = [pytest.mark.accept, pytest.mark.usefixtures("symbolic_sizes")]

VITS = {
    f"{ffn}-{registers}": small(ffn=ffn, registers=registers)
    for ffn in ("mlp", "swiglu")
    for registers in (0, 4)
} | {
    "four-channels": replace(small(), channels=4, patch_px=16, grid=3),
}
CONVNETS = ("resnet50", "convnext_tiny")


class Convolutional(nn.Module):
    """A network of timm with the forward of our backbones."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.network = timm.create_model(name, pretrained=False, num_classes=0)

    def forward(self, groups: list[Tensor]) -> list[Features]:
        """Features of each group."""
        found = []
        for images in groups:
            grid = self.network.forward_features(images)
            patches = grid.flatten(2).mT
            cls = self.network.forward_head(grid)
            found.append(Features(cls, patches[:, :0], patches, patches))
        return found


def differences(run: Run, model: FeatureModel, shapes: list[tuple[int, int, int, int]]) -> list[float]:
    """The largest of each batch, of class tokens and patches."""
    found = []
    for shape in shapes:
        pictures = torch.randn(shape, generator=torch.Generator().manual_seed(7))
        with torch.inference_mode():
            expected, made = model(pictures), run(pictures)
        assert [one.shape for one in made] == [one.shape for one in expected]
        assert all(one.std() > 0.1 for one in expected)
        found.append(max((one - other).abs().max().item() for one, other in zip(made, expected, strict=True)))
    return found


def load_program(path: Path) -> Run:
    run: Run = torch.export.load(path).module()
    return run


READERS: dict[str, tuple[str, Callable[[Path], Run], float]] = {
    "onnx": ("m.onnx", open_onnx, ONNX_BOUND),
    "torch_export": ("m.pt2", load_program, PROGRAM_BOUND),
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("name", VITS)
def test_vision_transformers(tmp_path: Path, name: str, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    config, (file, read, bound) = VITS[name], READERS[kind]
    model = drawn(config)
    source = tmp_path / "vit.safetensors"
    save_file(dict(model.state_dict()), source, metadata=metadata_of_config(config))
    out = export(source, format=kind, out=tmp_path / file)  # type: ignore[arg-type]
    assert capfd.readouterr() == ("", "")
    native, step, channels = config.grid * config.patch_px, config.patch_px, config.channels
    sizes = [(native, native), (2 * native, 2 * native), (native + step, 2 * step), (native - step, native)]
    shapes = [(number, channels, *size) for number, size in enumerate(sizes, start=1)]
    found = differences(read(out), FeatureModel(model), shapes)
    print(f"{name} as {kind}: max |Δ| " + ", ".join(f"{value:.1e}" for value in found))
    assert max(found) <= bound


@pytest.mark.parametrize("kind", READERS)
def test_of_one_size_alone(tmp_path: Path, kind: str) -> None:
    model, (file, read, bound), size_px = drawn(small()), READERS[kind], 98
    source = tmp_path / "vit.safetensors"
    save_file(dict(model.state_dict()), source, metadata=metadata_of_config(model.config))
    out = export(source, format=kind, out=tmp_path / file, size_px=size_px)  # type: ignore[arg-type]
    assert max(differences(read(out), FeatureModel(model), [(4, 3, size_px, size_px)])) <= bound


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("name", CONVNETS)
def test_convolutional_networks(tmp_path: Path, name: str, kind: str) -> None:
    model = FeatureModel(randomise(Convolutional(name)).eval())
    taken = Input(channels=3, multiple_px=32, native_px=224, min_px=64)
    file, read, bound = READERS[kind]
    write = {"onnx": write_onnx, "torch_export": write_program}[kind]
    write(model, tmp_path / file, taken=taken, facts={})
    shapes = [(1, 3, 224, 224), (2, 3, 64, 96)]
    found = differences(read(tmp_path / file), model, shapes)
    print(f"{name} as {kind}: max |Δ| " + ", ".join(f"{value:.1e}" for value in found))
    assert max(found) <= bound
