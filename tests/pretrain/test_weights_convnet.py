"""Convolutional networks from files and back: ours and timm's."""

import json
from pathlib import Path

import pytest
import timm
import torch
from convnet_jobs import CONVNEXT, RESNET, convnet_config
from drawn_vit import images, randomise
from safetensors.torch import save_file
from timm.models import load_state_dict, save_for_hf  # type: ignore[attr-defined]
from torch import Tensor

from curation.errors import ConfigError, ModelError
from pipelines.models.own_vit import load_tower
from pretrain.checkpoint_files import TEACHER
from pretrain.export import Format, export
from pretrain.model.convnet import ConvNet, ConvNetConfig
from pretrain.model.vit import VisionTransformer, variant
from pretrain.start import start_from
from pretrain.train import train
from pretrain.weights import load_backbone, metadata_of_config

CONFIGS = [ConvNetConfig("test_resnet", grid=4), ConvNetConfig("test_convnext", grid=4)]
BOTH = pytest.mark.parametrize("config", CONFIGS, ids=["resnet", "convnext"])


def saved(config: ConvNetConfig, folder: Path) -> tuple[ConvNet, Path]:
    """A drawn model in eval mode, and a file of ours with it."""
    model = randomise(ConvNet(config))
    for buffer in model.buffers():
        buffer.copy_(torch.rand(buffer.shape, generator=torch.Generator().manual_seed(2)) + 0.5)
    path = folder / "own.safetensors"
    save_file(model.state_dict(), path, metadata=metadata_of_config(config))
    return model.eval(), path


@torch.no_grad()
def cls(model: torch.nn.Module) -> Tensor:
    made = model([images(64)])
    token: Tensor = made[0].cls
    return token


@BOTH
@torch.no_grad()
def test_there_and_back_and_to_timm(config: ConvNetConfig, tmp_path: Path) -> None:
    model, file = saved(config, tmp_path)
    again = load_backbone(export(file, format="safetensors", out=tmp_path / "again.safetensors"))
    assert again.config == config
    assert torch.equal(cls(again), cls(model))
    folder = export(file, format="timm", out=tmp_path / "timm")
    net = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert torch.equal(net(images(64)), cls(model))
    assert tuple(net.pretrained_cfg["input_size"]) == (3, 64, 64)
    # timm's directory does not tell the virtual patch: the places of the last map are given as they are.
    back = load_backbone(folder)
    assert back.config == ConvNetConfig(config.name, patch_px=32, grid=2)
    assert torch.equal(cls(back), cls(model))


@BOTH
@torch.no_grad()
def test_what_timm_saved_is_begun_with(config: ConvNetConfig, tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = timm.create_model(config.name, pretrained=False, num_classes=5).eval()
    save_for_hf(net, tmp_path / "hub", safe_serialization=True)
    torch.save(net.state_dict(), tmp_path / "bare.pth")
    wanted = net.forward_head(net.forward_features(images(64)), pre_logits=True)
    for path in (tmp_path / "hub", tmp_path / "bare.pth"):
        model = ConvNet(config)
        model.load_state_dict(start_from(str(path), config))
        assert torch.equal(cls(model.eval()), wanted)
    with pytest.raises(ModelError, match="do not tell which one it is"):
        load_backbone(tmp_path / "bare.pth")


def test_another_network_is_refused(tmp_path: Path) -> None:
    resnet, convnext = CONFIGS
    _, file = saved(resnet, tmp_path)
    with pytest.raises(ConfigError, match="holds another backbone"):
        start_from(str(file), convnext)
    with pytest.raises(ConfigError, match="holds another backbone"):
        start_from(str(file), variant("vit_micro"))
    vit = VisionTransformer(variant("vit_micro"))
    save_file(vit.state_dict(), tmp_path / "vit.safetensors", metadata=metadata_of_config(vit.config))
    with pytest.raises(ConfigError, match="holds another backbone"):
        start_from(str(tmp_path / "vit.safetensors"), resnet)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    model, file = saved(CONFIGS[0], tmp_path)
    with pytest.raises(ModelError, match="has no heads"):
        load_backbone(file, num_heads=6)
    state = {name: tensor for name, tensor in model.state_dict().items() if "stem.bn1.running" not in name}
    save_file(state, tmp_path / "less.safetensors", metadata=metadata_of_config(CONFIGS[0]))
    with pytest.raises(ModelError, match=r"2 missing: stem\.bn1\.running_mean, stem\.bn1\.running_var"):
        load_backbone(tmp_path / "less.safetensors")
    folder = export(file, format="timm", out=tmp_path / "timm")
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "model_args": {"output_stride": 8}}))
    with pytest.raises(ModelError, match="output_stride"):
        load_backbone(folder)


@pytest.mark.parametrize("kind", ["huggingface", "official"])
def test_formats_of_transformers_are_refused(kind: Format, tmp_path: Path) -> None:
    _, file = saved(CONFIGS[0], tmp_path)
    with pytest.raises(ModelError, match="one of vision transformers"):
        export(file, format=kind, out=tmp_path / "out.pth")


@pytest.mark.parametrize("arch", [RESNET, CONVNEXT])
def test_a_run_is_an_embedder(arch: str, drawn: Path, tmp_path: Path) -> None:
    """Its newest checkpoint is a tower; exported for timm it has the same features."""
    config = convnet_config(
        arch, run_dir=str(tmp_path / "run"), data={"path": str(drawn)}, schedule={"iterations": 2}
    )
    folder = train(config, quiet=True)
    tower, view, _, _ = load_tower(str(tmp_path / "run"), image_size_px=None)
    assert view.side_px == 64
    with torch.no_grad():
        features = tower(images(64))
    net = timm.create_model(
        f"local-dir:{export(folder, format='timm', out=tmp_path / 'timm')}", pretrained=True
    )
    with torch.no_grad():
        assert torch.equal(net.eval()(images(64)), features)
    state = load_state_dict(str(folder / TEACHER))
    assert any(name.startswith("dino_head.") for name in state)
    with pytest.raises(ConfigError, match="no multiple of the patch"):
        load_tower(str(tmp_path / "run"), image_size_px=70)
