"""The terms of the objective, against loops over what their formulas say."""

import math

import pytest
import torch
from torch import Tensor, nn

from pretrain.loss.dino import dino_loss
from pretrain.loss.group import Alone, Group
from pretrain.loss.ibot import ibot_loss, patch_weights
from pretrain.loss.koleo import koleo_loss

T = 0.1


def entropy(logits: Tensor, target: Tensor) -> Tensor:
    return -(target * (logits / T).log_softmax(dim=-1)).sum()


@pytest.mark.parametrize("num_local", [0, 1, 3])
@pytest.mark.parametrize("num_images", [1, 4])
def test_dino_is_a_loop_over_pairs(num_local: int, num_images: int) -> None:
    rng = torch.Generator().manual_seed(0)
    globals_ = torch.randn(2 * num_images, 9, generator=rng, dtype=torch.float64)
    locals_ = torch.randn(num_local * num_images, 9, generator=rng, dtype=torch.float64)
    targets = torch.randn(2 * num_images, 9, generator=rng, dtype=torch.float64).softmax(dim=1)
    student = [*globals_.split(num_images), *(locals_.split(num_images) if num_local else ())]
    teacher = targets.split(num_images)
    terms: dict[bool, list[Tensor]] = {True: [], False: []}
    for s, crop in enumerate(student):
        for t, target in enumerate(teacher):
            if s != t:  # not of the same crop
                mean = torch.stack([entropy(crop[i], target[i]) for i in range(num_images)]).mean()
                terms[s < 2].append(mean)
    num_terms = len(terms[True]) + len(terms[False])
    assert num_terms == 2 + 2 * num_local
    got = dino_loss(globals_.float(), locals_.float(), targets.float(), temperature=T)
    assert got.globals_.item() == pytest.approx(sum(terms[True]).item() / num_terms, rel=1e-5)
    expected = sum(terms[False]).item() / num_terms if num_local else 0.0
    assert got.local.item() == pytest.approx(expected, rel=1e-5)


def test_the_teachers_views_are_swapped() -> None:
    # Crop 1 is sure of prototype 0, crop 2 of prototype 1, and so is the teacher: the other one counts.
    globals_ = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    got = dino_loss(globals_, torch.zeros(0, 2), targets, temperature=T).globals_
    assert got.item() == pytest.approx(math.log(1 + math.exp(10)), rel=1e-6)


def test_ibot_is_a_loop_over_patches() -> None:
    rng = torch.Generator().manual_seed(0)
    masks = torch.rand(6, 8, generator=rng) < torch.tensor([0.0, 0.2, 0.9, 0.5, 0.0, 1.0])[:, None]
    logits = torch.randn(int(masks.sum()), 5, generator=rng)
    targets = torch.randn(int(masks.sum()), 5, generator=rng).softmax(dim=1)
    total, number = 0.0, 0
    for image in masks:
        of_image = 0.0
        for _ in range(int(image.sum())):
            of_image += entropy(logits[number], targets[number]).item() / int(image.sum())
            number += 1
        total += of_image
    got = ibot_loss(logits, targets, patch_weights(masks), num_images=6, temperature=T)
    assert got.item() == pytest.approx(total / 6, rel=1e-5)  # images without a mask count as well


def test_patch_weights_by_hand() -> None:
    masks = torch.tensor([[True, False, True, True], [False] * 4, [False, False, True, False]])
    torch.testing.assert_close(patch_weights(masks), torch.tensor([1 / 3, 1 / 3, 1 / 3, 1.0]))


def test_no_patch_masked() -> None:
    logits = torch.randn(0, 5, requires_grad=True)
    masks = torch.zeros(4, 8, dtype=torch.bool)
    loss = ibot_loss(logits, torch.zeros(0, 5), patch_weights(masks), num_images=4, temperature=T)
    assert loss.item() == 0
    loss.backward()


@pytest.mark.parametrize("num", [2, 3, 17])
def test_koleo_is_a_loop_over_pairs(num: int) -> None:
    x = torch.randn(num, 6, generator=torch.Generator().manual_seed(num), requires_grad=True)
    unit = nn.functional.normalize(x.double(), dim=1)
    nearest = [min((unit[i] - unit[j]).norm() for j in range(num) if j != i) for i in range(num)]
    expected = -torch.stack(nearest).log().mean()
    got = koleo_loss(x, group=Alone())
    assert got.item() == pytest.approx(expected.item(), rel=1e-4)
    [ours], [theirs] = (torch.autograd.grad(loss, x, retain_graph=True) for loss in (got, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_koleo_by_hand() -> None:
    # On the unit circle at 0°, 60° and 180°: nearest at distances 1, 1 and √3.
    angles = torch.tensor([0.0, math.pi / 3, math.pi])
    x = 5 * torch.stack([angles.cos(), angles.sin()], dim=1)
    assert koleo_loss(x, group=Alone()).item() == pytest.approx(-math.log(3) / 6, rel=1e-5)


def test_koleo_of_one_and_of_equal_images() -> None:
    one = torch.randn(1, 4, requires_grad=True)
    loss = koleo_loss(one, group=Alone())
    loss.backward()
    assert loss.item() == 0
    assert (one.grad == 0).all()
    equal = torch.ones(3, 4, requires_grad=True)
    loss = koleo_loss(equal, group=Alone())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(equal.grad).all()


def test_alone_is_a_group() -> None:
    group = Alone()
    assert isinstance(group, Group)
    x = torch.randn(3, 2)
    assert group.sum(x) is x
    assert group.gather(x) is x
    assert (group.size, group.rank) == (1, 0)
