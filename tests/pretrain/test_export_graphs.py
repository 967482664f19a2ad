"""Graphs of `torch.export` and ONNX, loaded again: the model's features, for images of any size.

Few cases, for each takes seconds; all of them are in `tests/acceptance/test_export_matrix.py`.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from drawn_vit import drawn, images, small
from safetensors.torch import save_file
from torch import Tensor, nn

from curation.errors import ConfigError, ModelError
from pretrain.export import export
from pretrain.export_onnx import open_onnx, write_onnx
from pretrain.export_program import FACTS_NAME, FeatureModel, Input, require_same, write_program
from pretrain.model.vit import Features, ViTConfig
from pretrain.weights import metadata_of_config

pytestmark = pytest.mark.usefixtures("symbolic_sizes")
SHAPES = [(1, 56, 56), (3, 28, 98), (2, 126, 42)]
RGB = Input(channels=3, multiple_px=14, native_px=56, min_px=28)


def shallow(**change: Any) -> ViTConfig:
    return replace(small(dim=96, num_heads=3, **change), depth=1)


def saved(folder: Path, config: ViTConfig) -> tuple[FeatureModel, Path]:
    """A drawn backbone as a function, and its file. Its layers are the same in the graph: one shows it."""
    model = drawn(config)
    save_file(dict(model.state_dict()), folder / "vit.safetensors", metadata=metadata_of_config(config))
    return FeatureModel(model), folder / "vit.safetensors"


def assert_same(run: Any, model: FeatureModel, shapes: list[tuple[int, int, int]], bound: float) -> None:
    for num, height_px, width_px in shapes:
        pictures = torch.randn(num, 3, height_px, width_px, generator=torch.Generator().manual_seed(5))
        with torch.inference_mode():
            expected, made = model(pictures), run(pictures)
        assert expected[1].std() > 0.3
        for one, other in zip(made, expected, strict=True):
            assert one.shape == other.shape
            assert (one - other).abs().max() <= bound, (num, height_px, width_px)


def test_a_program_takes_any_size(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, file = saved(tmp_path, shallow())
    out = export(file, format="torch_export", out=tmp_path / "vit.pt2")
    assert capfd.readouterr() == ("", "")
    told = {FACTS_NAME: ""}
    run = torch.export.load(out, extra_files=told).module()
    assert_same(run, model, SHAPES, 1e-5)
    facts = json.loads(told[FACTS_NAME])
    assert json.loads(facts["mean"]) == [0.485, 0.456, 0.406]
    assert facts["height_and_width"] == "multiples of 14 px, from 28 px on"
    assert str(tmp_path) not in out.read_bytes().decode("latin-1")
    assert str(Path(__file__).parents[2]) not in out.read_bytes().decode("latin-1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vit.pt2", "vit.pt2.md", "vit.safetensors"]


def test_onnx_takes_any_size(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model, file = saved(tmp_path, shallow(ffn="swiglu", registers=4))
    out = export(file, format="onnx", out=tmp_path / "vit.onnx")
    assert capfd.readouterr() == ("", "")
    assert_same(open_onnx(out), model, SHAPES, 1e-3)
    written = onnx.load(out)
    onnx.checker.check_model(written, full_check=True)
    axes = [
        [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*written.graph.input, *written.graph.output)
    ]
    assert axes == [["batch", 3, "height", "width"], ["batch", 96], ["batch", "patches", 96]]
    facts = {entry.key: entry.value for entry in written.metadata_props}
    assert facts["lvd.std"] == "[0.229, 0.224, 0.225]"
    assert json.loads(facts["lvd.vit"])["registers"] == 4
    assert str(Path(__file__).parents[2]) not in out.read_bytes().decode("latin-1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vit.onnx", "vit.onnx.md", "vit.safetensors"]


class Convolution(nn.Module):
    """A backbone of another kind, with the same forward."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1)

    def forward(self, groups: list[Tensor]) -> list[Features]:
        """Features of each group."""
        maps = [self.map(group) for group in groups]
        return [
            Features(x.mean(dim=(2, 3)), x.new_zeros(x.shape[0], 0, 8), x.flatten(2).mT, x.flatten(2).mT)
            for x in maps
        ]


def test_one_size_alone(tmp_path: Path) -> None:
    model = FeatureModel(Convolution().eval())
    write_onnx(model, tmp_path / "c.onnx", taken=replace(RGB, size_px=70), facts={})
    assert_same(open_onnx(tmp_path / "c.onnx"), model, [(1, 70, 70), (5, 70, 70)], 1e-3)
    [given] = onnx.load(tmp_path / "c.onnx").graph.input
    assert [axis.dim_value for axis in given.type.tensor_type.shape.dim][1:] == [3, 70, 70]


def test_large_weights_lie_beside(tmp_path: Path) -> None:
    model, taken = FeatureModel(Convolution().eval()), replace(RGB, multiple_px=32, native_px=64, min_px=64)
    write_onnx(model, tmp_path / "c.onnx", taken=taken, facts={}, max_within_bytes=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.onnx", "c.onnx.data"]
    pictures = images(96)
    with torch.inference_mode():
        torch.testing.assert_close(open_onnx(tmp_path / "c.onnx")(pictures)[1], model(pictures)[1])


class Shifted(Convolution):
    """A model whose graph gives something else."""

    def forward(self, groups: list[Tensor]) -> list[Features]:
        """Features of each group."""
        [features] = super().forward(groups)
        return [features._replace(cls=features.cls + torch.compiler.is_exporting() * 2e-3)]


def test_what_gives_other_features_is_refused(tmp_path: Path) -> None:
    model, taken = FeatureModel(Shifted().eval()), replace(RGB, multiple_px=32, native_px=64, min_px=64)
    for write in (write_program, write_onnx):
        with pytest.raises(ModelError, match=r"other features.*Got: cls.*by 2\.0e-03.*at most 1e-0[35]"):
            write(model, tmp_path / "out", taken=taken, facts={})
    with pytest.raises(ModelError, match="inf"):
        require_same(lambda x: [x, x], model, taken=taken, bound=1.0, what="it")
    with pytest.raises(ModelError, match="nan"):
        require_same(
            lambda x: [part * torch.nan for part in model(x)], model, taken=taken, bound=1.0, what="it"
        )


def test_nothing_stays_of_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, file = saved(tmp_path, shallow())
    monkeypatch.setattr("pretrain.export_program.PROGRAM_BOUND", -1.0)
    with pytest.raises(ModelError, match="other features"):
        export(file, format="torch_export", out=tmp_path / "vit.pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["vit.safetensors"]


class Branching(Convolution):
    """What it computes depends on what it sees, which no graph can follow."""

    def forward(self, groups: list[Tensor]) -> list[Features]:
        """Features of each group."""
        print("a word of the model's own")
        return super().forward(groups if groups[0].sum() > 0 else [-groups[0]])


def test_a_model_that_cannot_be_traced(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = FeatureModel(Branching().eval())
    with pytest.raises(ModelError, match=r"cannot be traced.*data-dependent.*a word of the model's own"):
        write_program(model, tmp_path / "out", taken=replace(RGB, multiple_px=32, min_px=64), facts={})
    assert capfd.readouterr() == ("", "")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, file = saved(tmp_path, shallow())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"onnxruntime.*pip install 'lvd\[onnx\]'"):
        export(file, format="onnx", out=tmp_path / "vit.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["vit.safetensors"]


def test_what_is_asked_in_vain(tmp_path: Path) -> None:
    _, file = saved(tmp_path, shallow())
    for size_px in (0, -14, 50):
        with pytest.raises(ConfigError, match="a multiple of 14"):
            export(file, format="onnx", out=tmp_path / "vit.onnx", size_px=size_px)
    with pytest.raises(ConfigError, match="images of any size"):
        export(file, format="timm", out=tmp_path / "timm", size_px=70)
    with pytest.raises(ConfigError, match=r"Got: \.pt\. Expected: \.pt2"):
        export(file, format="torch_export", out=tmp_path / "vit.pt")
    with pytest.raises(ConfigError, match="given by its identifier"):
        export(file, format="timm", out=tmp_path / "timm", license_id="do what you like\n")
    (tmp_path / "vit.onnx.md").write_text("precious")
    with pytest.raises(ConfigError, match=r"vit\.onnx\.md is there already"):
        export(file, format="onnx", out=tmp_path / "vit.onnx")
