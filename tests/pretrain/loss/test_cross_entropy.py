"""Cross-entropy with soft targets, against torch's own."""

import math

import pytest
import torch
from torch import Tensor

from pretrain.loss.cross_entropy import soft_cross_entropy


def reference(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    return -(targets * (logits / temperature).log_softmax(dim=1)).sum(dim=1)


def drawn(num: int, prototypes: int, *, mass: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(num, prototypes, generator=rng)
    targets = (3 * torch.randn(num, prototypes, generator=rng)).softmax(dim=1) * mass
    return logits, targets, torch.randn(num, generator=rng)


def test_by_hand() -> None:
    # softmax(0, ln 3) = 1/4, 3/4
    logits, targets = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[1.0, 1.0]])
    expected = -math.log(1 / 4) - math.log(3 / 4)
    assert soft_cross_entropy(logits, targets, temperature=1.0).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("num", [1, 31, 32, 33, 100])
@pytest.mark.parametrize("mass", [1.0, 2.0, 0.0])
def test_values_and_gradients_are_torchs(num: int, mass: float) -> None:
    logits, targets, weights = drawn(num, 50, mass=mass)
    found = []
    for function in (soft_cross_entropy, reference):
        leaf = logits.clone().requires_grad_()
        if function is reference:
            losses = reference(leaf, targets, 0.1)
        else:
            losses = soft_cross_entropy(leaf, targets, temperature=0.1)
        (losses * weights).sum().backward()
        found.append((losses.detach(), leaf.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


def test_rows_that_sum_to_different_things() -> None:
    logits, targets, _ = drawn(40, 20)
    targets = targets * torch.linspace(0, 3, 40)[:, None]
    exact = reference(logits.double(), targets.double(), 0.1)
    torch.testing.assert_close(
        soft_cross_entropy(logits, targets, temperature=0.1), exact.float(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_gradients_of_finite_differences(scale: float) -> None:
    """In fp32, as it is computed: a central difference of 0.01 along random directions."""
    logits, targets, weights = drawn(4, 6)
    logits = logits + scale  # a shift changes nothing
    leaf = logits.clone().requires_grad_()
    (soft_cross_entropy(leaf, targets, temperature=1.0) * weights).sum().backward()
    for seed in range(5):
        way = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))
        ends = [
            (reference((logits + sign * 0.01 * way).double(), targets.double(), 1.0) * weights).sum()
            for sign in (1, -1)
        ]
        slope = ((ends[0] - ends[1]) / 0.02).item()
        assert (leaf.grad * way).sum().item() == pytest.approx(slope, rel=0.01, abs=1e-3)


def test_bf16_logits() -> None:
    logits, targets, weights = drawn(40, 30)
    rough = logits.bfloat16().requires_grad_()
    losses = soft_cross_entropy(rough, targets, temperature=0.1)
    assert losses.dtype is torch.float32
    (losses * weights).sum().backward()
    assert rough.grad.dtype is torch.bfloat16
    exact = logits.bfloat16().float().requires_grad_()
    wanted = reference(exact, targets, 0.1)
    torch.testing.assert_close(losses, wanted, rtol=1e-5, atol=1e-5)  # summed in fp32
    (wanted * weights).sum().backward()
    torch.testing.assert_close(rough.grad, exact.grad.bfloat16(), rtol=0.02, atol=1e-3)


def test_large_logits_do_not_overflow() -> None:
    logits = torch.tensor([[3000.0, 0.0], [-3000.0, 0.0]], requires_grad=True)
    losses = soft_cross_entropy(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), temperature=0.1)
    assert losses.tolist() == [0.0, 30000.0]
    losses.sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_no_rows() -> None:
    logits = torch.randn(0, 7, requires_grad=True)
    losses = soft_cross_entropy(logits, torch.zeros(0, 7), temperature=0.1)
    assert losses.shape == (0,)
    losses.sum().backward()
    # Zeros, not nothing: a head without a gradient would be left out of the exchange among ranks.
    assert logits.grad is not None
    assert logits.grad.shape == (0, 7)


def test_the_logits_are_left_as_they_are() -> None:
    logits, targets, _ = drawn(5, 7)
    leaf, before = logits.clone().requires_grad_(), targets.clone()
    soft_cross_entropy(leaf, targets, temperature=0.1).sum().backward()
    assert torch.equal(leaf.detach(), logits)
    assert torch.equal(targets, before)
