"""The vision transformer: sizes, tokens, positions, counts."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pretrain.model.positions import interpolate_positions
from pretrain.model.vit import VisionTransformer, ViTConfig, variant, with_registers

SMALL = ViTConfig(dim=24, depth=2, num_heads=3, patch_px=4, grid=4, layer_scale=0.5)


def make(config: ViTConfig = SMALL) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(config)


@pytest.mark.parametrize("size", [(16, 16), (8, 8), (4, 4), (12, 20), (24, 4), (40, 36)])
@pytest.mark.parametrize("registers", [0, 4])
def test_any_grid(size: tuple[int, int], registers: int) -> None:
    model = make(with_registers(SMALL, registers) if registers else SMALL)
    [features] = model([torch.randn(2, 3, *size)])
    num = size[0] // 4 * (size[1] // 4)
    assert features.cls.shape == (2, 24)
    assert features.registers.shape == (2, registers, 24)
    assert features.patches.shape == (2, num, 24)
    assert features.prenorm.shape == (2, 1 + registers + num, 24)
    normed = model.norm(features.prenorm)
    assert torch.equal(normed[:, 0], features.cls)
    assert torch.equal(normed[:, 1 + registers :], features.patches)
    _, patches = model.intermediate_layers(torch.randn(2, 3, *size), 1)[-1]
    assert patches.shape == (2, 24, size[0] // 4, size[1] // 4)


@pytest.mark.parametrize("channels", [1, 5])
def test_any_number_of_channels(channels: int) -> None:
    [features] = make(replace(SMALL, channels=channels))([torch.randn(2, channels, 8, 16)])
    assert features.patches.shape == (2, 8, 24)
    assert torch.isfinite(features.patches).all()


@pytest.mark.parametrize("size", [(15, 16), (16, 15), (3, 3)])
def test_odd_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{size[0]} × {size[1]} px cannot be cut into patches of 4 px"):
        make()([torch.randn(1, 3, *size)])


def test_heads_that_do_not_divide_the_width() -> None:
    with pytest.raises(ValueError, match="5 heads do not divide a width of 24"):
        replace(SMALL, num_heads=5)


def test_groups_together_are_groups_apart() -> None:
    model = make()
    images = [torch.randn(3, 3, 16, 16), torch.randn(5, 3, 8, 8)]
    mask = torch.rand(3, 16) < 0.4
    for together, alone in zip(
        model(images, [mask, None]),
        [model(images[:1], [mask])[0], model(images[1:])[0]],
        strict=True,
    ):
        torch.testing.assert_close(together.prenorm, alone.prenorm, rtol=1e-5, atol=1e-6)


def tokens_before_blocks(model: VisionTransformer, images: torch.Tensor, mask: torch.Tensor | None):
    model.blocks = nn.ModuleList()
    return model([images], [mask])[0].prenorm


@torch.no_grad()
def test_registers_and_mask_tokens_stand_where_they_should() -> None:
    model = make(with_registers(SMALL, 2))
    for number, p in enumerate((model.cls_token, model.register_tokens, model.mask_token)):
        p.fill_(number + 1.0)
    images = torch.randn(1, 3, 16, 16)
    mask = torch.zeros(1, 16, dtype=torch.bool)
    mask[0, 5] = True
    tokens = tokens_before_blocks(model, images, mask)
    torch.testing.assert_close(tokens[0, 0], 1 + model.pos_embed[0, 0])
    assert (tokens[0, 1:3] == 2).all()  # without a position
    torch.testing.assert_close(tokens[0, 3 + 5], 3 + model.pos_embed[0, 1 + 5])  # with its own
    weight = model.patch_embed.proj.weight.flatten(1)
    patch = images[0, :, 4:8, 8:12].flatten()  # row 1, column 2
    expected = weight @ patch + model.patch_embed.proj.bias + model.pos_embed[0, 1 + 6]
    torch.testing.assert_close(tokens[0, 3 + 6], expected)


def test_a_mask_hides_the_patch() -> None:
    model = make()
    images = torch.randn(2, 3, 16, 16)
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[:, 0] = True
    other = images.clone()
    other[:, :, :4, :4] += 1
    assert torch.equal(model([images], [mask])[0].prenorm, model([other], [mask])[0].prenorm)
    assert not torch.equal(model([images])[0].prenorm, model([other])[0].prenorm)


def test_intermediate_layers_are_the_blocks_outputs() -> None:
    model = make()
    images = torch.randn(2, 3, 16, 8)
    layers = model.intermediate_layers(images, 2)
    [features] = model([images])
    torch.testing.assert_close(layers[-1][0], features.cls)
    torch.testing.assert_close(layers[-1][1].flatten(2).mT, features.patches)
    shorter = make(replace(SMALL, depth=1))
    shorter.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("blocks.1")})
    torch.testing.assert_close(layers[0][0], shorter([images])[0].cls)


@pytest.mark.parametrize("grid", [(4, 4), (7, 7), (2, 3), (37, 5), (1, 1)])
@pytest.mark.parametrize(("offset", "antialias"), [(0.1, False), (0.0, True), (0.0, False)])
def test_positions_as_torch_resamples_them(grid: tuple[int, int], offset: float, antialias: bool) -> None:
    positions = torch.randn(1, 16, 6)
    got = interpolate_positions(positions, grid, offset=offset, antialias=antialias)
    assert got.shape == (1, grid[0] * grid[1], 6)
    if grid == (4, 4):
        assert got is positions
        return
    square = positions.reshape(1, 4, 4, 6).permute(0, 3, 1, 2)
    options = {"mode": "bicubic", "antialias": antialias}
    if offset:
        wanted = nn.functional.interpolate(
            square, scale_factor=((grid[0] + 0.1) / 4, (grid[1] + 0.1) / 4), **options
        )
    else:
        wanted = nn.functional.interpolate(square, size=grid, **options)
    torch.testing.assert_close(got, wanted.permute(0, 2, 3, 1).reshape(1, -1, 6))


@pytest.mark.parametrize("side", [16, 37])
def test_positions_have_the_right_grid_for_every_size(side: int) -> None:
    positions = torch.randn(1, side * side, 1)
    for rows in range(1, 60):
        assert interpolate_positions(positions, (rows, 3), offset=0.1, antialias=False).shape[1] == 3 * rows


def test_positions_keep_their_dtype() -> None:
    positions = torch.randn(1, 16, 6, dtype=torch.bfloat16)
    got = interpolate_positions(positions, (5, 5), offset=0.1, antialias=False)
    assert got.dtype is torch.bfloat16
    exact = interpolate_positions(positions.float(), (5, 5), offset=0.1, antialias=False)
    torch.testing.assert_close(got, exact.bfloat16())


@pytest.mark.parametrize(
    ("arch", "millions"),
    [("vit_small", 21), ("vit_base", 86), ("vit_large", 300), ("vit_giant", 1100)],
)
def test_sizes_as_published(arch: str, millions: int) -> None:
    """Source: the model cards of the released weights (ViT-S/14 21 M, B 86 M, L 300 M, g 1,100 M)."""
    with torch.device("meta"):
        model = VisionTransformer(replace(variant(arch), grid=37))
    num = sum(p.numel() for p in model.parameters())
    assert num == pytest.approx(millions * 1e6, rel=0.06)
    dim, depth, patch = model.config.dim, model.config.depth, 14 * 14 * 3
    ffn = 8 * dim * dim + 5 * dim
    if arch == "vit_giant":
        hidden = 4096
        ffn = 3 * dim * hidden + 2 * hidden + dim
    block = 4 * dim * dim + 4 * dim + ffn + 2 * 2 * dim + 2 * dim  # attention, FFN, norms, scales
    assert num == depth * block + patch * dim + dim + (1 + 1 + 37**2 + 1) * dim + 2 * dim


def test_initial_weights() -> None:
    model = make(with_registers(replace(SMALL, dim=96, layer_scale=1e-5), 4))
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.15)
    assert 0 < model.cls_token.abs().max() < 1e-5
    assert 0 < model.register_tokens.abs().max() < 1e-5
    assert (model.mask_token == 0).all()
    for block in model.blocks:
        assert block.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert (block.mlp.fc1.bias == 0).all()
        assert (block.ls1.gamma == 1e-5).all()
    assert (model.config.position_offset, model.config.position_antialias) == (0.0, True)
