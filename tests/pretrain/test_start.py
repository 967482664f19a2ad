"""A backbone that was trained before, for a model of another grid."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from drawn_vit import drawn, small
from safetensors.torch import save_file

from curation.errors import ConfigError
from pretrain.model.positions import interpolate_positions
from pretrain.model.vit import VisionTransformer
from pretrain.start import other_start, start_from
from pretrain.start_config import StartConfig
from pretrain.weights import metadata_of_config


def saved(model: VisionTransformer, folder: Path) -> str:
    save_file(model.state_dict(), folder / "backbone.safetensors", metadata=metadata_of_config(model.config))
    return str(folder / "backbone.safetensors")


def test_the_same_shape_starts_with_the_same_weights(tmp_path: Path) -> None:
    model = drawn(small())
    state = start_from(saved(model, tmp_path), model.config)
    assert state.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(state[name], tensor)


def test_another_grid_resamples_the_positions_of_patches_alone(tmp_path: Path) -> None:
    model = drawn(small())
    shape = replace(model.config, grid=6, drop_path=0.3)
    state = start_from(saved(model, tmp_path), shape)
    assert state["pos_embed"].shape == (1, 1 + 6 * 6, model.config.dim)
    torch.testing.assert_close(state["pos_embed"][:, 0], model.pos_embed[:, 0])
    resampled = interpolate_positions(
        model.pos_embed[:, 1:], (6, 6), offset=shape.position_offset, antialias=shape.position_antialias
    )
    torch.testing.assert_close(state["pos_embed"][:, 1:], resampled)
    VisionTransformer(shape).load_state_dict(state)  # every tensor, and no other
    rest = {name for name in state if name != "pos_embed"}
    assert all(torch.equal(state[name], model.state_dict()[name]) for name in rest)


def test_another_architecture_is_refused_with_both_shapes(tmp_path: Path) -> None:
    model = drawn(small())
    shape = replace(model.config, depth=model.config.depth + 1)
    with pytest.raises(ConfigError, match="holds another backbone than model asks for") as raised:
        start_from(saved(model, tmp_path), shape)
    assert "depth=3" in str(raised.value.got)
    assert "depth=4" in str(raised.value.expected)


def test_other_channels_are_refused_unless_they_are_to_be_inflated(tmp_path: Path) -> None:
    """A picture that is alike in all channels gives what it gave."""
    model = drawn(small())
    path, shape = saved(model, tmp_path), replace(model.config, channels=5)
    with pytest.raises(ConfigError, match=r"another number of channels.*model\.inflate"):
        start_from(path, shape)
    inflated = VisionTransformer(shape).eval()
    inflated.load_state_dict(start_from(path, shape, inflate=True))
    side_px = shape.grid * shape.patch_px
    grey = torch.randn(2, 1, side_px, side_px, generator=torch.Generator().manual_seed(0))
    [one], [five] = (each([grey.expand(-1, c, -1, -1)]) for each, c in ((model.eval(), 3), (inflated, 5)))
    torch.testing.assert_close(five.cls, one.cls, rtol=1e-4, atol=1e-5)
    same = start_from(path, model.config, inflate=True)
    assert all(torch.equal(same[name], tensor) for name, tensor in model.state_dict().items())


def test_another_start_than_a_training_began_with_is_told(tmp_path: Path) -> None:
    began = {"path": str(tmp_path / "a/checkpoints/step-00000010"), "step": 10, "sha256": "ab"}
    for same in (began["path"], str(tmp_path / "a")):
        assert other_start(StartConfig(checkpoint=same), began) is None
    told = other_start(StartConfig(checkpoint=str(tmp_path / "b")), began)
    assert told is not None
    assert str(tmp_path / "b") in told
    assert str(began["path"]) in told
