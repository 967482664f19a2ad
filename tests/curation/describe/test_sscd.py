"""SSCD's head by hand, its names in both published layouts, and the whitening against FAISS."""

from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from curation.describe.sscd import Sscd, SscdHead, Whitening, fit_whitening, own_names, sscd_view, trunk_of
from curation.errors import ModelError
from curation.pictures.views import View


def test_the_head_by_hand() -> None:
    head = SscdHead(2, 2)
    head.linear.load_state_dict({"weight": torch.eye(2), "bias": torch.tensor([0.0, 1.0])})
    maps = torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]]])
    # ((1 + 27) / 2)^(1/3) = 14^(1/3); nothing at all is the floor, 1e-6; the bias comes before the length.
    x, y = 14 ** (1 / 3), 1 + 1e-6
    torch.testing.assert_close(head(maps), torch.tensor([[x, y]]) / np.hypot(x, y))
    head.whitening = nn.Linear(2, 2)
    head.whitening.load_state_dict({"weight": torch.diag(torch.tensor([0.0, 2.0])), "bias": torch.zeros(2)})
    torch.testing.assert_close(head(maps), torch.tensor([[0.0, 1.0]]))


def test_the_whole_is_trunk_and_head() -> None:
    model = Sscd(nn.Conv2d(3, 4, 2, 2), width=4, dim=5)
    images = torch.rand(2, 3, 6, 6)
    descriptors = model(images)
    assert descriptors.shape == (2, 5)
    torch.testing.assert_close(descriptors, model.head(model.trunk(images)))
    assert set(own_names(model.state_dict()).values()) == set(model.state_dict())


@pytest.mark.parametrize(
    ("published", "own"),
    [
        ("backbone.initial_block._module.0.weight", "trunk.conv1.weight"),
        ("backbone.initial_block._module.1.running_var", "trunk.bn1.running_var"),
        ("backbone.blocks.0.block0-0.convolutional_block.0.weight", "trunk.layer1.0.conv1.weight"),
        ("backbone.blocks.0.block0-2.convolutional_block.1.bias", "trunk.layer1.2.bn1.bias"),
        ("backbone.blocks.2.block2-22.convolutional_block.3.weight", "trunk.layer3.22.conv2.weight"),
        ("backbone.blocks.2.block2-5.convolutional_block.4.running_mean", "trunk.layer3.5.bn2.running_mean"),
        ("backbone.blocks.3.block3-1.convolutional_block.6.weight", "trunk.layer4.1.conv3.weight"),
        ("backbone.blocks.3.block3-1.bn.weight", "trunk.layer4.1.bn3.weight"),
        ("backbone.blocks.1.block1-0.downsample.0.weight", "trunk.layer2.0.downsample.0.weight"),
        ("embeddings.1.bias", "head.linear.bias"),
        ("backbone.conv1.weight", "trunk.conv1.weight"),
        ("backbone.layer4.2.bn3.running_var", "trunk.layer4.2.bn3.running_var"),
        ("backbone.fc.weight", "head.linear.weight"),
        ("trunk.layer1.0.conv1.weight", "trunk.layer1.0.conv1.weight"),
        ("something.else", "something.else"),
    ],
)
def test_names(published: str, own: str) -> None:
    assert own_names({published: torch.zeros(1)}) == {published: own}


def test_counters_of_batch_norms_are_left_out_and_the_depth_tells_the_trunk() -> None:
    assert own_names({"backbone.bn1.num_batches_tracked": torch.zeros(1)}) == {}
    assert trunk_of({"trunk.layer3.5.conv1.weight": torch.zeros(1)}) == "resnet50"
    assert trunk_of({"trunk.layer3.22.conv1.weight": torch.zeros(1)}) == "resnext101_32x4d"


def test_the_view_is_the_whole_picture() -> None:
    assert sscd_view(None) == View(288, "squash", "bilinear")
    assert sscd_view(320) == View(320, "squash", "bilinear")


def descriptors(num: int, dim: int, seed: int = 0) -> np.ndarray:
    """Unit rows off centre, with directions of very different spread."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(num, dim)) * np.geomspace(1, 0.05, dim) @ rng.normal(size=(dim, dim)) + 0.3
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def applied(whitening: Whitening, rows: np.ndarray) -> np.ndarray:
    return rows @ whitening.weight.T + whitening.bias


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_whitening_by_hand() -> None:
    rows = np.array([[3, 0], [1, 0], [2, 2], [2, -2]], np.float32)  # mean (2, 0), variances 1/2 and 2
    found = fit_whitening(rows)
    np.testing.assert_allclose(np.abs(found.weight), [[0, 0.5**0.5], [2**0.5, 0]], atol=1e-6)
    np.testing.assert_allclose(applied(found, np.array([[2, 0]], np.float32)), [[0, 0]], atol=1e-6)


def test_a_fitted_whitening_is_saved_as_it_is(tmp_path: Path) -> None:
    """safetensors writes memory as it lies, whatever the strides say."""
    fitted = fit_whitening(descriptors(300, 6), dim=4)
    save_file(fitted._asdict(), tmp_path / "white.safetensors")
    np.testing.assert_array_equal(load_file(tmp_path / "white.safetensors")["weight"], fitted.weight)


def test_whitened_rows_are_centred_and_of_unit_covariance() -> None:
    rows = descriptors(3000, 24)
    for dim in (24, 7):
        made = applied(fit_whitening(rows, dim=dim), rows)
        np.testing.assert_allclose(made.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(made.T @ made / len(made), np.eye(dim), atol=1e-3)


@pytest.mark.parametrize("dim", [32, 12])
def test_whitening_as_faiss(dim: int) -> None:
    """Directions have no sign and equal spreads no order: cosines are what two whitenings must share."""
    rows, others = descriptors(4000, 32), descriptors(200, 32, seed=1)
    reference = faiss.index_factory(32, f"PCAW{dim},L2norm,Flat")
    reference.train(rows)
    expected = reference.sa_encode(others).view(np.float32)
    made = unit(applied(fit_whitening(rows, dim=dim), others))
    np.testing.assert_allclose(made @ made.T, expected @ expected.T, atol=2e-3)


def test_a_whitening_leaves_out_rows_without_a_descriptor() -> None:
    rows = descriptors(500, 8).astype(np.float16)
    with_gaps = np.concatenate([rows, np.zeros((50, 8), np.float16)])
    np.testing.assert_array_equal(fit_whitening(rows).weight, fit_whitening(with_gaps).weight)


@pytest.mark.parametrize(
    ("rows", "dim"),
    [
        (descriptors(5, 8), None),  # 5 rows span 4 directions
        (descriptors(500, 8), 9),
        (np.zeros((3, 4), np.float32), None),
        (np.zeros((0, 4), np.float32), None),
    ],
)
def test_a_sample_that_spans_too_little_is_refused(rows: np.ndarray, dim: int | None) -> None:
    with pytest.raises(ModelError, match="span"):
        fit_whitening(rows, dim=dim)
