"""Parameters, by hand and against the networks themselves."""

from dataclasses import replace

import pytest
import torch

from pretrain.cost.shape import (
    CropShape,
    NetworkShape,
    TrainingShape,
    backbone_parameters,
    block_parameters,
    block_weights,
    head_parameters,
    head_weights,
)
from pretrain.model.heads import HeadConfig
from pretrain.model.network import Network
from pretrain.model.vit import Arch, ViTConfig, variant, with_registers

TINY = ViTConfig(dim=4, depth=2, num_heads=2, patch_px=2, grid=3)


def test_a_tiny_network_by_hand() -> None:
    # qkv 3·4·4 + 12, proj 16 + 4, fc1 4·16 + 16, fc2 16·4 + 4, two norms of 8, two layer scales of 4.
    assert block_weights(TINY) == 48 + 16 + 64 + 64
    assert block_parameters(TINY) == 192 + 12 + 4 + 16 + 4 + 16 + 8
    # Patches 3·2·2·4 + 4, class and mask token 4 each, positions (1 + 9)·4, the last norm 8.
    assert backbone_parameters(TINY) == 52 + 8 + 40 + 2 * 252 + 8
    head = HeadConfig(4, prototypes=7, hidden_dim=6, bottleneck_dim=3)
    assert head_weights(head) == 24 + 36 + 18 + 21
    assert head_parameters(head) == 99 + 6 + 6 + 3 + 7
    assert NetworkShape(TINY, head).num_parameters == 612 + 121


@pytest.mark.parametrize("arch", ["vit_micro", "vit_small", "vit_giant"])
@pytest.mark.parametrize("is_separate", [False, True])
def test_a_network_has_as_many(arch: Arch, is_separate: bool) -> None:
    backbone = replace(variant(arch), depth=3, grid=5)
    if is_separate:
        backbone = with_registers(backbone)
    head = HeadConfig(backbone.dim, 100, 32, 8)
    own = HeadConfig(backbone.dim, 60, 32, 16) if is_separate else None
    with torch.device("meta"):
        network = Network(backbone, head, own)
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert NetworkShape(backbone, head, own).num_parameters == counted


def test_micro_batches_are_planned_for_the_fullest_of_them() -> None:
    student = NetworkShape(TINY, HeadConfig(4))
    shape = TrainingShape(
        (student,), None, CropShape(2, 3, 3), CropShape(1, 1, 1), 2.0, 32, 10, masked_deviation=0.5
    )
    assert shape.piece_masked == 64
    # Eight images, sixteen crops: four deviations of 0.5 · √16 above 16 patches.
    assert replace(shape, accumulate=4).piece_masked == 16 + 4 * 2
    # There are no more than those of the whole part of a rank.
    assert replace(shape, accumulate=4, masked_deviation=50.0).piece_masked == 64
