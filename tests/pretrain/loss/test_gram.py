"""Gram anchoring by hand, in blocks, on several ranks, and from larger crops."""

import math
from collections import deque
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pretrain.loss import gram
from pretrain.loss.gram import gram_loss, gram_targets
from pretrain.loss.group import Alone


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_autograd(student: Tensor, teacher: Tensor, *, over: str, normalised: bool, negatives: str) -> Tensor:
    """The whole matrices at once, in fp64."""
    sides = [student.double(), teacher.double()]
    if normalised:
        sides = [side / side.norm(dim=-1, keepdim=True) for side in sides]
    if over == "batch":
        sides = [side.reshape(1, -1, side.shape[-1]) for side in sides]
    ours, theirs = (torch.einsum("bpd,bqd->bpq", side, side) for side in sides)
    if negatives != "keep":
        theirs = torch.where(theirs < 0, 0.0, theirs)
    if negatives == "zero":
        ours = torch.where(ours < 0, 0.0, ours)
    return ((ours - theirs) ** 2).mean()


def test_by_hand() -> None:
    # Two patches of the student at 60° to one another, of the teacher at 120°: cosines of 1/2 and -1/2.
    def pair(degrees: float) -> Tensor:
        angle = math.radians(degrees)
        return torch.tensor([[[3.0, 0.0], [2 * math.cos(angle), 2 * math.sin(angle)]]])

    def got(**options: Any) -> float:
        return gram_loss(pair(60), pair(120), group=Alone(), **options).item()

    assert got() == pytest.approx(2 * 1**2 / 4)
    assert got(negatives="zero") == pytest.approx(2 * 0.5**2 / 4)
    assert got(normalised=False) == pytest.approx(2 * 6**2 / 4)
    # The other way round only the student is below 0: it counts unless both sides are cut.
    turned = gram_loss(pair(120), pair(60), negatives="zero_teacher", group=Alone())
    assert turned.item() == pytest.approx(2 * 1**2 / 4)


@pytest.mark.parametrize("block", [1, 7, 60, 1 << 20])
@pytest.mark.parametrize("over", ["image", "batch"])
@pytest.mark.parametrize("negatives", ["keep", "zero", "zero_teacher"])
def test_blocks_make_no_difference(
    block: int, over: Any, negatives: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gram, "_CPU_BLOCK", block)
    student, teacher = drawn(3, 5, 4).requires_grad_(), drawn(3, 5, 6, seed=1)
    options = {"over": over, "negatives": negatives, "normalised": True}
    got = gram_loss(student, teacher, group=Alone(), **options)
    expected = by_autograd(student, teacher, **options)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)
    [ours], [theirs] = (torch.autograd.grad(3 * loss, student) for loss in (got, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


class Pair:
    """One of two ranks that live in one process; what the other one has is given."""

    size = 2

    def __init__(self, rank: int, others: list[Tensor]) -> None:
        self.rank = rank
        self.others = deque(others)

    def sum(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def gather(self, x: Tensor) -> Tensor:
        other = nn.functional.normalize(self.others.popleft(), dim=-1).flatten(0, 1)
        return torch.cat([x, other] if self.rank == 0 else [other, x])


def test_two_ranks_are_one_batch() -> None:
    student, teacher = drawn(4, 5, 6).requires_grad_(), drawn(4, 5, 6, seed=1)
    whole = gram_loss(student, teacher, over="batch", group=Alone())
    ours, theirs = student.chunk(2), teacher.chunk(2)
    parts = [
        gram_loss(
            ours[rank], theirs[rank], over="batch", group=Pair(rank, [ours[1 - rank], theirs[1 - rank]])
        )
        for rank in range(2)
    ]
    mean = torch.stack(parts).mean()
    assert mean.item() == pytest.approx(whole.item(), rel=1e-6)
    [expected], [got] = (torch.autograd.grad(loss, student) for loss in (whole, mean))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)


def test_the_teacher_does_not_learn() -> None:
    student, teacher = drawn(2, 3, 4).requires_grad_(), drawn(2, 3, 4, seed=1).requires_grad_()
    gram_loss(student.bfloat16(), teacher, group=Alone()).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_equal_up_to_a_turn_and_a_length_is_no_loss() -> None:
    student = drawn(2, 6, 4)
    turn = torch.linalg.qr(drawn(4, 4, seed=1)).Q
    assert gram_loss(student, 5 * student @ turn, group=Alone()).item() < 1e-12


def test_targets_come_to_the_students_grid() -> None:
    # Halved, a new pixel lies midway between two old ones: bicubic weights of -3, 19, 19, -3 of 32.
    maps = drawn(2, 8 * 10, 3)
    got = gram_targets(maps, (8, 10), to=(4, 5)).reshape(2, 4, 5, 3)
    square, weights = maps.reshape(2, 8, 10, 3), torch.tensor([-3.0, 19.0, 19.0, -3.0]) / 32
    for row, column in [(1, 1), (2, 1), (1, 3), (2, 2)]:
        window = square[:, 2 * row - 1 : 2 * row + 3, 2 * column - 1 : 2 * column + 3]
        expected = torch.einsum("brcd,r,c->bd", window, weights, weights)
        torch.testing.assert_close(got[:, row, column], expected, rtol=1e-5, atol=1e-6)


def test_targets_on_the_same_grid_stay() -> None:
    maps = drawn(1, 6, 3)
    assert torch.equal(gram_targets(maps, (2, 3), to=(2, 3)), maps)
