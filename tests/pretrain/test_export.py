"""Exports, opened by the libraries that they are for: the same features at the model's own grid."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from drawn_vit import drawn, images, small, tokens
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from curation.errors import ConfigError, ExecutorError, ModelError
from pretrain.export import Format, card_path, export
from pretrain.model.vit import VisionTransformer, ViTConfig
from pretrain.weights import load_backbone, metadata_of_config

CONFIGS = {
    "mlp": small(),
    "mlp-reg": small(registers=4),
    "swiglu": small(ffn="swiglu"),
    "swiglu-reg": small(ffn="swiglu", registers=4),
    "patch-16": replace(small(dim=192, num_heads=3), depth=1, patch_px=16, grid=3),
    "patch-8-reg": replace(small(ffn="swiglu", registers=1, dim=192, num_heads=3), patch_px=8),
    "narrow-heads": small(ffn="swiglu", dim=104, num_heads=13),
}
TOLERANCE = 1e-4
OUT: dict[Format, str] = {
    "huggingface": "hf",
    "timm": "timm",
    "official": "o.pth",
    "safetensors": "o.safetensors",
}


def saved(folder: Path, config: ViTConfig) -> tuple[VisionTransformer, Path]:
    """A drawn backbone, and its file."""
    model = drawn(config)
    state = {f"backbone.{name}": tensor for name, tensor in model.state_dict().items()}
    save_file(state, folder / "teacher.safetensors", metadata=metadata_of_config(config))
    return model, folder / "teacher.safetensors"


def native(model: VisionTransformer) -> Tensor:
    """Pictures of the size at which every format is exact."""
    return images(model.config.grid * model.config.patch_px)


def assert_close(made: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0.3  # nothing is compared with nothing
    difference = (made - expected).abs().max().item()
    print(f"max |Δ| {difference:.1e}")
    assert difference < TOLERANCE


@contextmanager
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr("socket.socket.connect", lambda *_: pytest.fail("reached for the network"))
        yield


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from transformers import AutoModel

    model, file = saved(tmp_path, CONFIGS[name])
    pictures = native(model)
    out = export(file, format="huggingface", out=tmp_path / "hf")
    with no_network(monkeypatch), torch.inference_mode():
        theirs, info = AutoModel.from_pretrained(out, output_loading_info=True)
        made = theirs.eval()(pictures).last_hidden_state
    assert not any(info.values()), info
    assert type(theirs).__name__ == ("Dinov2WithRegistersModel" if model.config.registers else "Dinov2Model")
    assert_close(made, tokens(model, pictures))
    assert torch.equal(theirs.embeddings.mask_token, model.mask_token)
    assert_close(tokens(load_backbone(out), pictures), tokens(model, pictures))


def test_transformers_masks_as_we_do(tmp_path: Path) -> None:
    from transformers import AutoModel

    model, file = saved(tmp_path, small())
    theirs = AutoModel.from_pretrained(export(file, format="huggingface", out=tmp_path / "hf")).eval()
    mask = torch.arange(32).view(2, 16) % 3 == 0
    with torch.inference_mode():
        made = theirs(images(), bool_masked_pos=mask).last_hidden_state[:, 1:]
        [ours] = model([images()], [mask])
    assert_close(made, ours.patches)


def test_the_image_processor_is_that_of_the_released_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoImageProcessor

    _, file = saved(tmp_path, replace(small(), grid=16))
    out = export(file, format="huggingface", out=tmp_path / "hf")
    with no_network(monkeypatch):
        processor = AutoImageProcessor.from_pretrained(out)
    assert type(processor).__name__.startswith("BitImageProcessor")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))
    made = processor(picture, return_tensors="pt")["pixel_values"]
    by_hand = picture.resize((341, 256), Image.Resampling.BICUBIC).crop((58, 16, 282, 240))
    pixels = (np.asarray(by_hand) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    assert made.shape == (1, 3, 224, 224)
    # Torchvision's bicubic resize and Pillow's round differently, by one step of 256.
    assert np.abs(made[0].permute(1, 2, 0).numpy() - pixels).max() < 0.02


@pytest.mark.parametrize("name", CONFIGS)
def test_timm_opens_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    model, file = saved(tmp_path, CONFIGS[name])
    pictures = native(model)
    out = export(file, format="timm", out=tmp_path / "timm")
    with no_network(monkeypatch), torch.inference_mode():
        theirs = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
        made = theirs.forward_features(pictures)
        assert_close(theirs(pictures), tokens(model, pictures)[:, 0])
    assert_close(made, tokens(model, pictures))
    assert_close(tokens(load_backbone(out), pictures), tokens(model, pictures))


def test_timm_opens_a_standard_size(tmp_path: Path) -> None:
    model, file = saved(tmp_path, ViTConfig(384, 12, 6, grid=4))
    out = export(file, format="timm", out=tmp_path / "timm")
    assert json.loads((out / "config.json").read_text())["architecture"] == "vit_small_patch14_dinov2"
    theirs = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    by_name = timm.create_model(
        "vit_small_patch14_dinov2", checkpoint_path=out / "model.safetensors", img_size=56
    ).eval()
    with torch.inference_mode():
        for made in (theirs, by_name):
            assert_close(made.forward_features(images()), tokens(model, images()))


def test_timm_takes_its_preprocessing_from_it(tmp_path: Path) -> None:
    _, file = saved(tmp_path, replace(small(), grid=16))
    out = export(file, format="timm", out=tmp_path / "timm")
    theirs = timm.create_model(f"local-dir:{out}", pretrained=True)
    assert timm.data.resolve_model_data_config(theirs) == {
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "crop_pct": 0.875,
        "crop_mode": "center",
    }


@pytest.mark.parametrize("side_px", [42, 70])
def test_other_sizes_with_registers_are_exact_in_every_library(tmp_path: Path, side_px: int) -> None:
    from transformers import AutoModel

    model, file = saved(tmp_path, small(registers=4))
    huggingface = AutoModel.from_pretrained(export(file, format="huggingface", out=tmp_path / "hf")).eval()
    out = export(file, format="timm", out=tmp_path / "timm")
    theirs = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    with torch.inference_mode():
        expected = tokens(model, images(side_px))
        assert_close(huggingface(images(side_px)).last_hidden_state, expected)
        assert_close(theirs.forward_features(images(side_px)), expected)


def test_other_sizes_without_registers_are_those_of_the_library(tmp_path: Path) -> None:
    """The table of the module: each library's own resampling, which our model repeats when it is told to."""
    from transformers import AutoModel

    _, file = saved(tmp_path, small())
    huggingface = AutoModel.from_pretrained(export(file, format="huggingface", out=tmp_path / "hf")).eval()
    out = export(file, format="timm", out=tmp_path / "timm")
    theirs = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
    with torch.inference_mode():
        for made, antialias in (
            (huggingface(images(42)).last_hidden_state, False),
            (theirs.forward_features(images(42)), True),
        ):
            same = drawn(replace(small(), position_offset=0.0, position_antialias=antialias))
            assert_close(made, tokens(same, images(42)))
            assert (made - tokens(drawn(small()), images(42))).abs().max() > 0.01


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "narrow-heads"])
def test_official_and_our_own_files(tmp_path: Path, name: str) -> None:
    model, file = saved(tmp_path, CONFIGS[name])
    official = export(file, format="official", out=tmp_path / "o.pth")
    state = torch.load(official, weights_only=True)
    assert type(state) is dict
    assert state.keys() == model.state_dict().keys()
    ours = export(file, format="safetensors", out=tmp_path / "o.safetensors")
    assert load_file(ours).keys() == model.state_dict().keys()
    for out in (official, ours):
        made = load_backbone(out)
        assert made.config == model.config
        other_size = images(5 * model.config.patch_px)
        assert torch.equal(tokens(made, other_size), tokens(model, other_size))


def test_from_any_format_to_any_other(tmp_path: Path) -> None:
    model, file = saved(tmp_path, small(ffn="swiglu", registers=4))
    for first, name in OUT.items():
        source = export(file, format=first, out=tmp_path / first / name)
        for second, other in OUT.items():
            out = export(source, format=second, out=tmp_path / first / "then" / second / other)
            assert_close(tokens(load_backbone(out), images(70)), tokens(model, images(70)))


def test_what_a_format_cannot_say(tmp_path: Path) -> None:
    cases: list[tuple[Format, ViTConfig, str]] = [
        ("huggingface", replace(small(registers=4), position_antialias=False), "resamples its positions"),
        ("huggingface", replace(small(registers=4), position_offset=0.1), "resamples its positions"),
        ("huggingface", replace(small(), position_antialias=True), "resamples its positions"),
        ("timm", replace(small(), position_offset=0.0), "resamples its positions"),
        ("official", replace(small(), position_offset=0.0), "resamples its positions"),
        ("official", small(dim=96, num_heads=3), "the number of attention heads"),
        ("huggingface", replace(small(), channels=4), "other images than RGB"),
        ("timm", replace(small(), channels=1), "other images than RGB"),
    ]
    for number, (kind, config, what) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        _, file = saved(folder, config)
        with pytest.raises(ModelError, match=f"The {kind} format cannot say .*{what}.*safetensors"):
            export(file, format=kind, out=folder / OUT[kind])
        assert [entry.name for entry in folder.iterdir()] == ["teacher.safetensors"]
        assert (
            load_backbone(export(file, format="safetensors", out=folder / "o.safetensors")).config == config
        )


def test_what_a_library_does_by_itself_can_be_said(tmp_path: Path) -> None:
    _, file = saved(tmp_path, replace(small(), position_offset=0.0))
    export(file, format="huggingface", out=tmp_path / "hf")
    _, file = saved(tmp_path, replace(small(), position_offset=0.0, position_antialias=True))
    export(file, format="timm", out=tmp_path / "timm")


@pytest.mark.parametrize("kind", OUT)
def test_nothing_is_overwritten(tmp_path: Path, kind: Format) -> None:
    _, file = saved(tmp_path, small())
    out = tmp_path / OUT[kind]
    out.write_text("precious")
    with pytest.raises(ConfigError, match="is there already"):
        export(file, format=kind, out=out)
    assert out.read_text() == "precious"


@pytest.mark.parametrize("kind", OUT)
def test_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Format) -> None:
    _, file = saved(tmp_path, small())

    def full_disk(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full_disk)
        with pytest.raises(ExecutorError, match="The disk is full"):
            export(file, format=kind, out=tmp_path / "deep" / OUT[kind])
    assert list((tmp_path / "deep").iterdir()) == []
    assert export(file, format=kind, out=tmp_path / "deep" / OUT[kind]).exists()
    left = sorted(entry.name for entry in (tmp_path / "deep").iterdir())
    assert left == sorted({OUT[kind], card_path(Path(OUT[kind]), kind).parts[0]})


def test_names_that_do_not_fit_the_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Got: \.bin\. Expected: \.pth or \.pt"):
        export(tmp_path, format="official", out=tmp_path / "a.bin")
    with pytest.raises(ConfigError, match=r"Got: none\. Expected: \.safetensors"):
        export(tmp_path, format="safetensors", out=tmp_path / "a")
