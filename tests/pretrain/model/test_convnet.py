"""ResNets and ConvNeXts of timm behind our interface: timm's own features, on a grid of virtual patches."""

from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from drawn_vit import images, randomise
from torch import Tensor, nn

from curation.errors import ConfigError
from pretrain.model.batch_norm import BatchNorm, uncounted, with_own_batch_norms
from pretrain.model.convnet import ConvNet, ConvNetConfig
from pretrain.model.hollow import hollow
from pretrain.model.keys_convnet import from_timm_convnet, to_timm_convnet

RESNET = ConvNetConfig("test_resnet", patch_px=16, grid=4)
CONVNEXT = ConvNetConfig("test_convnext", patch_px=16, grid=4)
BOTH = pytest.mark.parametrize("config", [RESNET, CONVNEXT], ids=["resnet", "convnext"])


def pair(config: ConvNetConfig) -> tuple[ConvNet, Any]:
    """A model of ours and one of timm's with the same weights, everything at random, in eval mode."""
    net = timm.create_model(config.name, pretrained=False, num_classes=0, in_chans=config.channels)
    randomise(net)
    for name, buffer in net.named_buffers():
        if name.endswith(("mean", "var")):
            buffer.copy_(torch.rand(buffer.shape, generator=torch.Generator().manual_seed(1)) + 0.5)
    model = ConvNet(config)
    model.load_state_dict(from_timm_convnet(net.state_dict()))
    return model.eval(), net.eval()


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        "test_convnext",
        pytest.param("resnet18", marks=pytest.mark.accept),
        pytest.param("convnext_atto", marks=pytest.mark.accept),
        pytest.param("seresnet50", marks=pytest.mark.accept),
        pytest.param("resnet50_gn", marks=pytest.mark.accept),
    ],
)
@torch.no_grad()
def test_features_are_those_of_timm(name: str) -> None:
    """At the stride of the last map nothing is resampled, and the rest is timm's own forward to the bit."""
    config = ConvNetConfig(name, patch_px=32, grid=2)
    model, net = pair(config)
    big, small = images(64), images(32, seed=2)
    found = model([big, small])
    for features, pictures in zip(found, (big, small), strict=True):
        map_ = net.forward_features(pictures)
        assert torch.equal(features.cls, net.forward_head(map_, pre_logits=True))
        assert torch.equal(features.prenorm[:, 1:], map_.flatten(2).mT)
        assert features.registers.shape == (2, 0, config.dim)
        assert features.patches.shape == (2, (pictures.shape[-1] // 32) ** 2, config.dim)
    patches = found[0].prenorm[:, 1:]
    if (norm := getattr(net, "head", None)) is not None:
        patches = norm.norm(patches.mT.unflatten(2, (2, 2))).flatten(2).mT
    torch.testing.assert_close(found[0].patches, patches)


@BOTH
@torch.no_grad()
def test_places_are_resampled_to_the_virtual_patches(config: ConvNetConfig) -> None:
    model, _ = pair(config)
    pictures = images(64)
    model.config = replace(config, patch_px=32)
    own = model([pictures])[0].prenorm[:, 1:].mT.unflatten(2, (2, 2))
    model.config = config
    [fine] = model([pictures])
    wanted = nn.functional.interpolate(own, size=(4, 4), mode="bilinear", antialias=True)
    torch.testing.assert_close(fine.prenorm[:, 1:], wanted.flatten(2).mT)
    # By hand: along a side of two places a and b, the four are a, (3 a + b) / 4, (a + 3 b) / 4, b.
    a, b = own[0, :, 0].unbind(1)
    row = torch.stack([a, (3 * a + b) / 4, (a + 3 * b) / 4, b])
    torch.testing.assert_close(fine.prenorm[0, 1:5], row)


@BOTH
def test_what_cannot_be_seen_is_refused(config: ConvNetConfig) -> None:
    model = ConvNet(config)
    with pytest.raises(ValueError, match="no mask token"):
        model([images(64)], [torch.zeros(2, 16, dtype=torch.bool)])
    model([images(64)], [None])
    with pytest.raises(ValueError, match="virtual patches of 16 px"):
        model([images(56)])


def test_images_of_less_than_a_place_are_refused() -> None:
    with pytest.raises(ValueError, match="takes 32 px and more"):
        ConvNet(CONVNEXT)([images(16)])
    with pytest.raises(ValueError, match="takes 32 px and more"):
        ConvNet(RESNET)([images(16)])


@BOTH
def test_a_group_of_no_images_has_features_of_none(config: ConvNetConfig) -> None:
    empty, full = ConvNet(config)([images(32, num=0), images(64)])
    assert empty.cls.shape == (0, config.dim)
    assert empty.patches.shape == (0, 4, config.dim)
    assert full.patches.shape == (2, 16, config.dim)


@BOTH
def test_names_of_timm_and_back(config: ConvNetConfig) -> None:
    net = timm.create_model(config.name, pretrained=False, num_classes=7)
    ours = from_timm_convnet(net.state_dict())
    assert ours.keys() == ConvNet(config).state_dict().keys()
    left = {"fc.weight", "fc.bias"} if config is RESNET else {"head.fc.weight", "head.fc.bias"}
    assert to_timm_convnet(ours).keys() == net.state_dict().keys() - left


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet5", "resnet50"), ("vit_small_patch16_224", "such as"), ("resnetblur18", "filt")],
)
def test_other_models_are_refused(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=near):
        ConvNet(ConvNetConfig(name))


@pytest.mark.parametrize(("name", "dim"), [("resnet50", 2048), ("convnext_tiny", 768)])
def test_the_models_of_every_day(name: str, dim: int) -> None:
    config = ConvNetConfig(name, patch_px=16, channels=4)
    assert (config.dim, config.depth) == (dim, 4)
    with hollow():  # drawing 25 million weights takes longer than the rest
        [features] = ConvNet(config).eval()([torch.zeros(1, 4, 32, 32)])
    assert features.patches.shape == (1, 4, dim)


def test_each_stage_is_a_unit() -> None:
    """Sharding, compiling and computing again go by these."""
    for config in (RESNET, CONVNEXT):
        model = ConvNet(config)
        assert len(model.blocks) == config.depth
        maps = [model.stem(images(64))]
        for block in model.blocks:
            maps = block(maps)
        assert maps[0].shape == (2, config.dim, 2, 2)


def norms(dim: int = 3) -> tuple[nn.BatchNorm2d, BatchNorm]:
    own = nn.BatchNorm2d(dim)
    holder = nn.Sequential(own)
    randomise(holder)
    with_own_batch_norms(holder)
    assert isinstance(holder[0], BatchNorm)
    again = nn.BatchNorm2d(dim)
    again.load_state_dict({**own.state_dict()})
    return again, holder[0]


def test_batch_norm_is_that_of_torch() -> None:
    theirs, ours = norms()
    for seed in range(3):
        x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(theirs(x), ours(x))
        assert torch.equal(theirs.running_mean, ours.running_mean)
        assert torch.equal(theirs.running_var, ours.running_var)
    assert torch.equal(theirs.eval()(x), ours.eval()(x))


def test_batch_norm_by_hand() -> None:
    """0, 1, 2, 5 have a mean of 2, a variance of 3.5, and one of 14 / 3 as a sample."""
    norm = BatchNorm(1, eps=1e-12, momentum=0.1)
    x = torch.tensor([0.0, 1.0, 2.0, 5.0]).view(4, 1, 1, 1)
    made: Tensor = norm(x)
    torch.testing.assert_close(made.flatten(), (x.flatten() - 2) / 3.5**0.5)
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.2]))
    torch.testing.assert_close(norm.running_var, torch.tensor([0.9 + 0.1 * 14 / 3]))


def test_uncounted_forwards_leave_the_statistics() -> None:
    _, norm = norms()
    x = images(8)
    before = [buffer.clone() for buffer in norm.buffers()]
    with uncounted(norm):
        quiet = norm(x)
    assert all(torch.equal(a, b) for a, b in zip(before, norm.buffers(), strict=True))
    assert torch.equal(quiet, norm(x))
    assert not any(torch.equal(a, b) for a, b in zip(before, norm.buffers(), strict=True))


def test_statistics_stay_fp32_around_bf16() -> None:
    _, norm = norms()
    norm.weight.data, norm.bias.data = norm.weight.data.bfloat16(), norm.bias.data.bfloat16()
    made = norm(images(8).bfloat16())
    assert made.dtype is torch.bfloat16
    assert norm.running_mean.dtype is torch.float32
    assert norm.to(torch.bfloat16).eval()(images(8).bfloat16()).dtype is torch.bfloat16
