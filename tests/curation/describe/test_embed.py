"""The embedder contract: specs, configs, unit rows, and torch modules behind it."""

import numpy as np
import pytest
import torch
from open_clip.transformer import ResidualAttentionBlock
from pydantic import ValidationError
from torch import nn

from curation.describe.embed import EmbedConfig, EmbedderSpec, parse_embedder, sscd_spec, unit_rows
from curation.describe.fast_vit import BmmSelfAttention, use_bmm_attention
from curation.describe.torch_embedder import TorchEmbedder
from curation.errors import ConfigError, ModelError
from curation.pictures.views import View


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("gist", EmbedderSpec("gist")),
        ("open_clip:ViT-B-32/openai", EmbedderSpec("open_clip", "ViT-B-32", "openai")),
        ("open_clip:ViT-B-32//data/w.pt", EmbedderSpec("open_clip", "ViT-B-32", "/data/w.pt")),
        ("timm:vit_small_patch14_dinov2.lvd142m", EmbedderSpec("timm", "vit_small_patch14_dinov2.lvd142m")),
        ("timm:resnet50@/data/a@b.pth", EmbedderSpec("timm", "resnet50", "/data/a@b.pth")),
        ("vit:runs/a:b/pretrain", EmbedderSpec("vit", weights="runs/a:b/pretrain")),
        ("sscd:/m/disc@2.pt", EmbedderSpec("sscd", weights="/m/disc@2.pt")),
        (f"sscd:d.pt@{'aB' * 32}", EmbedderSpec("sscd", weights="d.pt", sha256="ab" * 32)),
        (
            f"sscd:d.pt,whitening=w.safetensors@{'0f' * 32}",
            EmbedderSpec("sscd", weights="d.pt", whitening="w.safetensors", whitening_sha256="0f" * 32),
        ),
        ("precomputed:s3://bucket/v.parquet", EmbedderSpec("precomputed", weights="s3://bucket/v.parquet")),
    ],
)
def test_specs(spec: str, parsed: EmbedderSpec) -> None:
    assert parse_embedder(spec) == parsed


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "gist:",
        "gist:x",
        "clip",
        "open_clip:ViT-B-32",
        "open_clip:/openai",
        "timm:",
        "timm:x@",
        "timm:@x",
        "timm:hf-hub:a/b",
        "timm:local-dir:/x",
        "vit",
        "vit:",
        "sscd",
        "sscd:",
        "sscd:d.pt@",
        "sscd:d.pt@0f0f",
        f"sscd:d.pt@{'0f' * 33}",
        f"sscd:@{'0f' * 32}",
        f"sscd:d.pt@{'0f' * 32}@{'0f' * 32}",
        "sscd:d.pt,whitening=",
        "sscd:d.pt,whitening=a.pt,whitening=b.pt",
        "precomputed:",
        "precomputed:v.npy",
        "TIMM:x",
    ],
)
def test_other_specs_are_refused_with_what_is_allowed(spec: str) -> None:
    with pytest.raises(ConfigError, match="open_clip:ARCH"):
        parse_embedder(spec)
    with pytest.raises(ValidationError, match=r"embedder[\s\S]*open_clip:ARCH"):
        EmbedConfig(embedder=spec)


@pytest.mark.parametrize("whitening", ["", ",whitening=w.pt", f",whitening=w.pt@{'1a' * 32}"])
@pytest.mark.parametrize("pin", ["", f"@{'0f' * 32}"])
def test_an_sscd_is_spelled_as_it_is_parsed(pin: str, whitening: str) -> None:
    spec = f"sscd:/m/d.pt{pin}{whitening}"
    assert sscd_spec(parse_embedder(spec)) == spec


def test_unit_rows_by_hand() -> None:
    features = np.array([[3, 4], [0, 0], [np.nan, 1], [np.inf, 1], [1e30, 0], [1e-30, 0]], np.float32)
    expected = np.array([[0.6, 0.8], [0, 0], [0, 0], [0, 0], [1, 0], [1, 0]], np.float16)
    np.testing.assert_array_equal(unit_rows(features), expected)


class _Mean(nn.Module):
    """Mean of each channel: what a tower sees after the normalisation."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean(dim=(2, 3))


class _Broken(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean(dim=(2, 3)) * float("nan")


def wrap(tower: nn.Module, *, batch_rows: int = 3) -> TorchEmbedder:
    return TorchEmbedder(
        "tower",
        tower,
        view=View(8),
        mean=(0.5, 0.25, 0.0),
        std=(0.5, 0.25, 1.0),
        dtype="fp32",
        compile_=False,
        batch_rows=batch_rows,
        threads=1,
        device="cpu",
    )


def test_normalisation_by_hand() -> None:
    embedder = wrap(_Mean())
    assert (embedder.dim, embedder.batch_rows) == (3, 3)
    pixels = np.zeros((3, 8, 8, 3), np.uint8)
    pixels[0] = (255, 0, 0)  # (1, -1, 0)
    pixels[1] = (0, 255, 255)  # (-1, 3, 1)
    pixels.setflags(write=False)
    half = 0.5**0.5
    expected = [[half, -half, 0], [-1 / 11**0.5, 3 / 11**0.5, 1 / 11**0.5], [-half, -half, 0]]
    np.testing.assert_allclose(embedder.embed(pixels), expected, atol=5e-4)


class _Wide(nn.Module):
    """Maps (n, 3, 1, 1) of a dtype that is kept."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert image.dtype == torch.bfloat16
        return image.mean(dim=(2, 3), keepdim=True)


def test_a_head_is_computed_in_fp32_whatever_the_dtype() -> None:
    head = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False))
    weight = torch.tensor([[1.0, 0.0, 1e-3], [0.0, 1.0 + 1e-6, 0.0]])
    head[1].weight.data.copy_(weight)
    embedder = TorchEmbedder(
        "tower",
        _Wide(),
        view=View(8),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        dtype="bf16",
        compile_=False,
        batch_rows=2,
        threads=1,
        device="cpu",
        head=head,
    )
    assert embedder.dim == 2
    torch.testing.assert_close(head[1].weight.data, weight, rtol=0, atol=0)
    pixels = np.full((2, 8, 8, 3), 255, np.uint8)
    expected = np.array([1.001, 1.0]) / np.hypot(1.001, 1.0)
    np.testing.assert_allclose(embedder.embed(pixels), [expected, expected], atol=5e-4)


def test_the_shape_is_fixed() -> None:
    with pytest.raises(AssertionError):
        wrap(_Mean()).embed(np.zeros((2, 8, 8, 3), np.uint8))


def test_a_model_of_nans_is_found_when_it_is_built() -> None:
    with pytest.raises(ModelError, match="finite"):
        wrap(_Broken())


def test_a_row_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    tower = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.GELU(), nn.Flatten(), nn.Linear(64, 24))
    embedder = wrap(tower, batch_rows=5)
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (5, 8, 8, 3), np.uint8)
    alone = np.zeros_like(pixels)
    alone[2] = pixels[2]
    np.testing.assert_array_equal(embedder.embed(pixels)[2], embedder.embed(alone)[2])


def test_bmm_attention_is_the_same_maths() -> None:
    torch.manual_seed(0)
    block = ResidualAttentionBlock(48, 4).eval().requires_grad_(False)
    tokens = torch.randn(2, 9, 48)
    before = block(tokens)
    assert use_bmm_attention(nn.Sequential(block)) == 1
    assert isinstance(block.attn, BmmSelfAttention)
    torch.testing.assert_close(block(tokens), before, atol=1e-5, rtol=1e-5)


def test_unknown_attention_stays() -> None:
    tower = nn.Sequential(nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 16))
    assert use_bmm_attention(tower) == 0
