"""Sinkhorn–Knopp against the textbook, and the centre that moves one step late."""

import pytest
import torch
from tiny import drawn_batch, tiny_config
from torch import Tensor

from pretrain.loss.group import Alone
from pretrain.loss.sinkhorn import NUM_ITERATIONS, centred_softmax, moved_centre, sinkhorn_knopp
from pretrain.parallel import Place
from pretrain.targets import Centres, initial_centres, teacher_targets
from pretrain.train import build
from pretrain.train_step import to_batch


def textbook(logits: Tensor, temperature: float, rounds: int) -> Tensor:
    """Rows are prototypes; both are normalised in turn, as in the paper's listing."""
    q = (logits.double() / temperature).exp().T
    num_prototypes, num_samples = q.shape
    q /= q.sum()
    for _ in range(rounds):
        q /= q.sum(dim=1, keepdim=True) * num_prototypes
        q /= q.sum(dim=0, keepdim=True) * num_samples
    return (q * num_samples).T


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (12, 5), (7, 40), (64, 64)])
@pytest.mark.parametrize("temperature", [0.04, 0.07, 1.0])
def test_the_textbook_form(shape: tuple[int, int], temperature: float) -> None:
    logits = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    got = sinkhorn_knopp(logits, temperature=temperature, group=Alone())
    expected = textbook(logits, temperature, NUM_ITERATIONS).float()
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-7)


def test_by_hand() -> None:
    # One prototype is preferred by both samples alike: an equal share for each prototype leaves halves.
    logits = torch.log(torch.tensor([[4.0, 1.0], [4.0, 1.0]]))
    got = sinkhorn_knopp(logits, temperature=1.0, group=Alone())
    torch.testing.assert_close(got, torch.full((2, 2), 0.5))


def test_marginals() -> None:
    logits = torch.randn(60, 20, generator=torch.Generator().manual_seed(1))
    got = sinkhorn_knopp(logits, temperature=0.5, group=Alone())
    torch.testing.assert_close(got.sum(dim=1), torch.ones(60))
    assert (got >= 0).all()
    # Columns come near an equal share after three rounds, and were far from it before.
    raw = (logits / 0.5).softmax(dim=1).sum(dim=0)
    assert (got.sum(dim=0) - 3).abs().max() < 0.2 * (raw - 3).abs().max()


def test_no_rows_and_bf16() -> None:
    assert sinkhorn_knopp(torch.zeros(0, 5), temperature=0.1, group=Alone()).shape == (0, 5)
    logits = torch.randn(8, 5).bfloat16()
    got = sinkhorn_knopp(logits, temperature=0.1, group=Alone())
    assert got.dtype is torch.float32
    torch.testing.assert_close(got, sinkhorn_knopp(logits.float(), temperature=0.1, group=Alone()))


def test_centred_softmax() -> None:
    logits, centre = torch.tensor([[1.0, 2.0]]), torch.tensor([1.0, 1.0])
    e = torch.tensor(1.0).exp()
    got = centred_softmax(logits, centre, temperature=1.0)
    torch.testing.assert_close(got, torch.stack([1 / (1 + e), e / (1 + e)])[None])


def test_the_centre_by_hand() -> None:
    centre = torch.tensor([1.0, -1.0])
    logits = torch.tensor([[2.0, 0.0], [4.0, 2.0]])
    moved = moved_centre(centre, [logits], momentum=0.9, group=Alone())
    torch.testing.assert_close(moved, torch.tensor([0.9 + 0.3, -0.9 + 0.1]))
    torch.testing.assert_close(centre, torch.tensor([1.0, -1.0]))


def test_the_centre_moves_one_step_late() -> None:
    """A step's targets use the centre of the steps before it."""
    config = tiny_config(objective={"centring": "softmax", "centre_momentum": 0.5})
    where = Place(torch.device("cpu"), torch.float32, Alone(), None)
    state = build(config, where)
    state.teacher.network.dino_head.last_layer.weight_v.data.uniform_(-0.1, 1)
    batches = [to_batch(drawn_batch(4, seed=seed), where) for seed in range(2)]
    centres, scores = initial_centres(state.teacher.network), []
    for batch in batches:
        targets, after = teacher_targets(
            state.teacher.network, batch, centres, config.objective, temperature=0.07, group=Alone()
        )
        [features] = state.teacher.network.backbone([batch.globals_])
        scores.append(state.teacher.network.dino_head(features.cls).detach())
        torch.testing.assert_close(targets.cls, ((scores[-1] - centres.cls) / 0.07).softmax(dim=1))
        torch.testing.assert_close(after.cls, 0.5 * centres.cls + 0.5 * scores[-1].mean(dim=0))
        centres = after
    assert isinstance(centres, Centres)
    assert (centres.cls != 0).all()
    # Sinkhorn–Knopp leaves them where they are.
    sinkhorn = tiny_config().objective
    _, same = teacher_targets(
        state.teacher.network, batches[0], centres, sinkhorn, temperature=0.07, group=Alone()
    )
    assert same is centres
