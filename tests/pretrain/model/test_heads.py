"""The projection head, and the network that has one or two of them."""

import pytest
import torch
from torch import nn

from pretrain.model.heads import HeadConfig, ProjectionHead, WeightNormLinear
from pretrain.model.network import Network
from pretrain.model.vit import ViTConfig

BACKBONE = ViTConfig(dim=24, depth=1, num_heads=3, patch_px=4, grid=2)
HEAD = HeadConfig(24, prototypes=20, hidden_dim=16, bottleneck_dim=8)


def test_weight_norm_of_torch() -> None:
    torch.manual_seed(0)
    ours = WeightNormLinear(8, 20)
    theirs = nn.Linear(8, 20, bias=False)
    nn.utils.parametrizations.weight_norm(theirs)
    ours.weight_g.data.uniform_(0.5, 2)
    theirs.parametrizations.weight.original0.data = ours.weight_g.data
    theirs.parametrizations.weight.original1.data = ours.weight_v.data
    x = torch.randn(5, 8)
    torch.testing.assert_close(ours(x), theirs(x))
    weights = torch.randn(5, 20)
    (ours(x) * weights).sum().backward()
    (theirs(x) * weights).sum().backward()
    torch.testing.assert_close(ours.weight_g.grad, theirs.parametrizations.weight.original0.grad)
    torch.testing.assert_close(ours.weight_v.grad, theirs.parametrizations.weight.original1.grad)


def test_weight_norm_by_hand() -> None:
    layer = WeightNormLinear(2, 1)
    layer.weight_v.data = torch.tensor([[3.0, 4.0]])
    layer.weight_g.data = torch.tensor([[10.0]])
    torch.testing.assert_close(layer(torch.tensor([[1.0, 0.5]])), torch.tensor([[10.0]]))  # 10 · (0.6 + 0.4)


def test_a_head_by_its_formula() -> None:
    torch.manual_seed(0)
    head = ProjectionHead(HEAD)
    x = torch.randn(7, 24)
    one, two, three = (head.mlp[i] for i in (0, 2, 4))
    made = three(nn.functional.gelu(two(nn.functional.gelu(one(x)))))
    unit = made / made.norm(dim=1, keepdim=True)
    directions = head.last_layer.weight_v / head.last_layer.weight_v.norm(dim=1, keepdim=True)
    torch.testing.assert_close(head(x), unit @ directions.T)
    assert head(x).abs().max() <= 1 + 1e-6  # cosines, as long as the lengths are 1
    assert one.weight.shape == (16, 24)
    assert three.weight.shape == (8, 16)


def test_what_a_head_starts_with() -> None:
    head = ProjectionHead(HEAD)
    assert (head.last_layer.weight_g == 1).all()
    assert all(p.requires_grad for p in head.parameters())
    assert all((layer.bias == 0).all() for layer in head.mlp if isinstance(layer, nn.Linear))
    assert set(head.state_dict()) == {f"mlp.{i}.{k}" for i in (0, 2, 4) for k in ("weight", "bias")} | {
        "last_layer.weight_g",
        "last_layer.weight_v",
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_zero_bottleneck_is_no_nan(dtype: torch.dtype) -> None:
    head = ProjectionHead(HEAD).to(dtype)
    for p in head.mlp.parameters():
        nn.init.zeros_(p)
    out = head(torch.zeros(2, 24, dtype=dtype))
    assert (out == 0).all()


def test_one_head_serves_both() -> None:
    network = Network(BACKBONE, HEAD, None)
    cls, patches = torch.randn(3, 24), torch.randn(5, 24)
    scores = network.project(cls, patches)
    torch.testing.assert_close(scores.cls, network.dino_head(cls))
    torch.testing.assert_close(scores.patches, network.dino_head(patches))
    assert not any(key.startswith("ibot_head") for key in network.state_dict())


def test_separate_heads() -> None:
    network = Network(BACKBONE, HEAD, HeadConfig(24, 12, 16, 4))
    cls, patches = torch.randn(3, 24), torch.randn(0, 24)
    scores = network.project(cls, patches)
    assert scores.cls.shape == (3, 20)
    assert scores.patches.shape == (0, 12)
