"""The losses of distillation against loops in fp64: a frozen teacher, and a student that sees no mask."""

from typing import Any

import distillation_loops as loops
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pretrain.loss.dino import dino_loss
from pretrain.loss.features import feature_loss, standardised
from pretrain.loss.group import Alone
from pretrain.loss.ibot import ibot_loss, patch_weights
from pretrain.loss.koleo import koleo_loss
from pretrain.model.block import take_rows
from pretrain.model.feature_head import FeatureHead
from pretrain.model.heads import HeadConfig
from pretrain.model.network import Network
from pretrain.model.vit import ViTConfig
from pretrain.objective import Batch, ObjectiveConfig
from pretrain.targets import initial_centres, teacher_targets

NUM_IMAGES, NUM_LOCAL, GRID, PATCH_PX = 3, 2, 4, 4
T, TEACHER_T = 0.1, 0.05
REL = 2e-5


def network(dim: int, seed: int) -> Network:
    """Two blocks with a head for class tokens and another for patches; scores far from uniform."""
    torch.manual_seed(seed)
    config = ViTConfig(dim=dim, depth=2, num_heads=2, patch_px=PATCH_PX, grid=GRID, layer_scale=0.5)
    made = Network(config, HeadConfig(dim, 9, 16, 8), HeadConfig(dim, 7, 16, 8))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


@pytest.fixture(scope="module")
def batch() -> Batch:
    rng = torch.Generator().manual_seed(0)
    side, local = GRID * PATCH_PX, 2 * PATCH_PX
    masks = torch.rand(2 * NUM_IMAGES, GRID * GRID, generator=rng) < 0.4
    masks[1] = False  # an image of which no position is sampled
    return Batch(
        torch.randn(2 * NUM_IMAGES, 3, side, side, generator=rng),
        torch.randn(NUM_LOCAL * NUM_IMAGES, 3, local, local, generator=rng),
        masks,
    )


def fp64(x: Tensor) -> Any:
    return x.detach().double().numpy()


@torch.no_grad()
def test_prototypes_of_a_frozen_teacher(batch: Batch) -> None:
    student, teacher = network(16, 1), network(24, 2)
    config = ObjectiveConfig(centring="sinkhorn")
    targets, _ = teacher_targets(
        teacher, batch, initial_centres(teacher), config, temperature=TEACHER_T, group=Alone()
    )
    [seen] = teacher.backbone([batch.globals_])
    sampled = seen.patches[batch.masks]
    cls_targets = loops.sinkhorn(fp64(teacher.dino_head(seen.cls)), temperature=TEACHER_T)
    assert teacher.ibot_head is not None
    patch_targets = loops.sinkhorn(fp64(teacher.ibot_head(sampled)), temperature=TEACHER_T)
    np.testing.assert_allclose(fp64(targets.cls), cls_targets, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(fp64(targets.patches), patch_targets, rtol=1e-3, atol=1e-6)

    views, crops = student.backbone([batch.globals_, batch.locals_])  # no mask: the student sees all of it
    rows = batch.masks.flatten().nonzero()[:, 0]
    cls, patches = student.project(
        torch.cat([views.cls, crops.cls]), take_rows(views.patches.flatten(0, 1), rows)
    )
    globals_, locals_ = cls[: 2 * NUM_IMAGES], cls[2 * NUM_IMAGES :]
    dino = dino_loss(globals_, locals_, targets.cls, temperature=T)
    expected = loops.dino(
        *(fp64(x).reshape(-1, NUM_IMAGES, 9) for x in (globals_, locals_)),
        cls_targets.reshape(2, NUM_IMAGES, 9),
        temperature=T,
    )
    assert (dino.local.item(), dino.globals_.item()) == pytest.approx(expected, rel=REL)

    ibot = ibot_loss(
        patches, targets.patches, patch_weights(batch.masks), num_images=2 * NUM_IMAGES, temperature=T
    )
    assert student.ibot_head is not None
    every = fp64(student.ibot_head(views.patches.flatten(0, 1))).reshape(2 * NUM_IMAGES, GRID * GRID, 7)
    assert ibot.item() == pytest.approx(
        loops.ibot(every, patch_targets, batch.masks.numpy(), temperature=T), rel=REL
    )
    for view in views.cls.chunk(2):
        assert koleo_loss(view, group=Alone()).item() == pytest.approx(loops.koleo(fp64(view)), rel=REL)


@pytest.mark.parametrize(("grid", "teacher_grid"), [((3, 4), (3, 4)), ((2, 3), (4, 5)), ((5, 4), (2, 3))])
def test_features_of_a_teacher_without_heads(grid: tuple[int, int], teacher_grid: tuple[int, int]) -> None:
    rng = torch.Generator().manual_seed(0)
    cls, patches = torch.randn(3, 6, generator=rng), torch.randn(3, grid[0] * grid[1], 6, generator=rng)
    num_patches = teacher_grid[0] * teacher_grid[1]
    teacher_cls = 30 * torch.randn(3, 8, generator=rng) + 5
    teacher_patches = 0.01 * torch.randn(3, num_patches, 8, generator=rng) - 0.2
    torch.manual_seed(3)
    head = FeatureHead(6, 8)
    nn.init.normal_(head.patches.weight)  # gaps on both sides of the knee
    nn.init.normal_(head.cls.bias)
    made = head(cls, patches)
    got = feature_loss(
        *made, teacher_cls=teacher_cls, teacher_patches=teacher_patches, grid=grid, teacher_grid=teacher_grid
    )
    expected = loops.features(
        fp64(made.cls),
        fp64(made.patches).reshape(3, *grid, 8),
        fp64(teacher_cls),
        fp64(teacher_patches).reshape(3, *teacher_grid, 8),
    )
    assert (got.cls.item(), got.patches.item()) == pytest.approx(expected, rel=REL)
    (got.cls + got.patches).backward()
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_feature_loss_by_hand() -> None:
    # Targets of (1, -1) as they are: at a right angle and 1 away in one of two values; and twice as long.
    target = torch.tensor([[4.0, 2.0]])
    torch.testing.assert_close(standardised(target), torch.tensor([[1.0, -1.0]]))
    cls, patches = torch.tensor([[1.0, 1.0]]), torch.tensor([[[2.0, -2.0]]])
    got = feature_loss(
        cls, patches, teacher_cls=target, teacher_patches=target[None], grid=(1, 1), teacher_grid=(1, 1)
    )
    assert got.cls.item() == pytest.approx(1, abs=1e-6)
    assert got.patches.item() == pytest.approx(0.1 * 0.5, rel=1e-5)


def test_the_teachers_scale_and_offset_do_not_matter() -> None:
    rng = torch.Generator().manual_seed(0)
    cls, patches = torch.randn(2, 16, generator=rng), torch.randn(2, 4, 16, generator=rng)
    found = [
        feature_loss(
            cls,
            patches,
            teacher_cls=scale * (cls + 1) + 3,
            teacher_patches=scale * (patches * 2 - 1),
            grid=(2, 2),
            teacher_grid=(2, 2),
        )
        for scale in (1.0, 100.0)
    ]
    for one, other in zip(*found, strict=True):
        assert one.item() == pytest.approx(other.item(), rel=1e-4)


def test_a_projection_and_the_resampling_commute() -> None:
    rng = torch.Generator().manual_seed(0)
    head, maps = FeatureHead(5, 7), torch.randn(2, 6, 5, generator=rng)
    small = nn.functional.interpolate(
        maps.reshape(2, 2, 3, 5).permute(0, 3, 1, 2), size=(3, 4), mode="bilinear"
    )
    teacher = {
        "teacher_cls": torch.randn(2, 7, generator=rng),
        "teacher_patches": torch.randn(2, 12, 7, generator=rng),
    }
    late = feature_loss(*head(maps[:, 0], maps), **teacher, grid=(2, 3), teacher_grid=(3, 4))
    early = feature_loss(*head(maps[:, 0], small.flatten(2).mT), **teacher, grid=(3, 4), teacher_grid=(3, 4))
    assert late.patches.item() == pytest.approx(early.patches.item(), rel=1e-5)
