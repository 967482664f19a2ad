"""New heads on a trained backbone: they learn alone at first, and the backbone goes on without a leap."""

import pytest
import torch
from rank_jobs import NUM_IMAGES
from tiny import drawn_batch, tiny_config
from torch import Tensor

from pretrain.parallel import Place, place
from pretrain.train import build, plan_of
from pretrain.train_step import State, train_step

ALONE = 4
CONFIG = tiny_config(
    schedule={"freeze_backbone": ALONE, "lr_warmup": 0, "momentum": 0.5, "base_lr": 1e-3},
    optimizer={"layer_decay": 1.0, "patch_embed_lr": 1.0},
    model={"layer_scale": 1.0},
)
pytestmark = pytest.mark.usefixtures("one_thread")


def parts(state: State) -> dict[str, dict[str, Tensor]]:
    networks = {"student": state.learners[0].student.network, "teacher": state.teacher.network}
    return {
        f"{role} {part}": {n: p.detach().clone() for n, p in getattr(network, part).named_parameters()}
        for role, network in networks.items()
        for part in ("backbone", "dino_head")
    }


def stepped(state: State, where: Place, *steps: int) -> None:
    for step in steps:
        train_step(state, drawn_batch(NUM_IMAGES, seed=step, step=step), plan_of(CONFIG), where)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_backbone_stays_to_the_bit_while_the_heads_and_their_mean_move() -> None:
    with place(CONFIG.parallel) as where:
        state = build(CONFIG, where)
        before = parts(state)
        stepped(state, where, *range(ALONE))
        after = parts(state)
        for role in ("student", "teacher"):
            assert same(after[f"{role} backbone"], before[f"{role} backbone"])
            assert not same(after[f"{role} dino_head"], before[f"{role} dino_head"])
        stepped(state, where, ALONE)
        for role in ("student", "teacher"):
            assert not same(parts(state)[f"{role} backbone"], after[f"{role} backbone"])


def first_free_step(*, forgets: bool) -> Tensor:
    """How far the weights of the backbone go in the first step that moves them, in learning rates."""
    with place(CONFIG.parallel) as where:
        state = build(CONFIG, where)
        stepped(state, where, *range(ALONE))
        learner = state.learners[0]
        backbone = dict(learner.student.network.backbone.named_parameters())
        if forgets:
            for parameter in backbone.values():
                learner.optimizer.state.pop(parameter, None)
        before = {name: p.detach().clone() for name, p in backbone.items()}
        stepped(state, where, ALONE)
        lr = max(group["lr"] for group in learner.optimizer.param_groups if group["rule"].is_backbone)
        moved = [(p.detach() - before[n]).flatten() for n, p in backbone.items() if n.endswith("weight")]
        return torch.cat(moved).abs() / lr


def test_moments_that_were_gathered_meanwhile_make_the_first_step_a_small_one() -> None:
    """AdamW without a past moves every weight by the whole rate, whatever its gradient."""
    assert first_free_step(forgets=True).median().item() == pytest.approx(1.0, abs=0.05)
    assert first_free_step(forgets=False).median().item() < 0.75
