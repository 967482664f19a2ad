"""AdamW as scheduled, clipping by part, and the teacher's mean, all against the formulas."""

import pytest
import torch
from tiny import tiny_config
from torch import nn

from pretrain.model.heads import HeadConfig
from pretrain.model.network import Network
from pretrain.optimizer import (
    OptimizerConfig,
    apply_schedule,
    build_adamw,
    clip_gradients,
    move_teacher,
    rule_of,
)
from pretrain.schedules import Scheduled

CONFIG = OptimizerConfig(layer_decay=0.5, patch_embed_lr=0.2)
VALUES = Scheduled(
    lr=0.01, last_layer_lr=0.0, backbone_lr=0.01, weight_decay=0.3, momentum=0.9, teacher_temperature=0.07
)


def make(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    head = HeadConfig(96, 20, 16, 8)
    return Network(tiny_config().backbone(drop_path=0.0), head, HeadConfig(96, 12, 16, 8))


@pytest.mark.parametrize(
    ("name", "lr", "decay", "last"),
    [
        ("backbone.cls_token", 0.125, 1, False),
        ("backbone.pos_embed", 0.125, 1, False),
        ("backbone.mask_token", 0.125, 1, False),
        ("backbone.register_tokens", 0.125, 1, False),
        ("backbone.patch_embed.proj.weight", 0.025, 1, False),
        ("backbone.patch_embed.proj.bias", 0.025, 0, False),
        ("backbone.blocks.0.attn.qkv.weight", 0.25, 1, False),
        ("backbone.blocks.1.mlp.fc2.bias", 0.5, 0, False),
        ("backbone.blocks.1.norm1.weight", 0.5, 0, False),
        ("backbone.blocks.1.ls2.gamma", 0.5, 0, False),
        ("backbone.norm.weight", 1, 0, False),
        ("dino_head.mlp.0.weight", 1, 1, False),
        ("dino_head.mlp.0.bias", 1, 0, False),
        ("dino_head.last_layer.weight_v", 1, 1, True),
        ("ibot_head.last_layer.weight_g", 1, 1, True),
    ],
)
def test_rules_by_hand(name: str, lr: float, decay: float, last: bool) -> None:
    rule = rule_of(name, depth=2, config=CONFIG)
    assert (rule.lr, rule.weight_decay, rule.is_last_layer) == (pytest.approx(lr), decay, last)


def test_every_parameter_is_in_one_group() -> None:
    network = make()
    optimizer = build_adamw(network.named_parameters(), depth=2, config=CONFIG)
    found = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(found) == len(set(map(id, found))) == len(list(network.parameters()))
    assert len({group["rule"] for group in optimizer.param_groups}) == len(optimizer.param_groups)


def test_steps_are_those_of_the_formula() -> None:
    network = make()
    optimizer = build_adamw(network.named_parameters(), depth=2, config=CONFIG)
    expected = {n: p.detach().double().clone() for n, p in network.named_parameters()}
    first, second = ({n: torch.zeros_like(p) for n, p in expected.items()} for _ in range(2))
    rng = torch.Generator().manual_seed(0)
    for step in range(1, 4):
        values = VALUES._replace(
            lr=0.01 * step,
            backbone_lr=0.01 * step,
            last_layer_lr=0.0 if step < 3 else 0.02,
            weight_decay=0.1 * step,
        )
        apply_schedule(optimizer, values)
        for name, parameter in network.named_parameters():
            parameter.grad = torch.randn(parameter.shape, generator=rng)
            rule = rule_of(name, depth=2, config=CONFIG)
            gradient = parameter.grad.double()
            lr = rule.lr * (values.last_layer_lr if rule.is_last_layer else values.lr)
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            expected[name] *= 1 - lr * rule.weight_decay * values.weight_decay
            move = first[name] / (1 - 0.9**step) / ((second[name] / (1 - 0.999**step)).sqrt() + 1e-8)
            expected[name] -= lr * move
        optimizer.step()
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(parameter.detach().double(), expected[name], rtol=1e-4, atol=1e-6)


def test_a_frozen_last_layer_stays() -> None:
    network = make()
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    optimizer = build_adamw(network.named_parameters(), depth=2, config=CONFIG)
    apply_schedule(optimizer, VALUES)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, before[name]) == ("last_layer" in name), name


def test_each_part_is_clipped_by_its_own_norm() -> None:
    network = make()
    scales = {"backbone": 10.0, "dino_head": 0.001, "ibot_head": 1.0}
    gradients, norms = {}, {}
    for part, scale in scales.items():
        for name, parameter in getattr(network, part).named_parameters():
            parameter.grad = scale * torch.randn(parameter.shape)
            gradients[f"{part}.{name}"] = parameter.grad.double().clone()
        norms[part] = (
            sum(float((g**2).sum()) for n, g in gradients.items() if n.startswith(f"{part}.")) ** 0.5
        )
    found = clip_gradients(network, limit=3.0)
    assert {n: x.item() for n, x in found.items()} == pytest.approx(norms, rel=1e-5)
    for name, parameter in network.named_parameters():
        norm = norms[name.partition(".")[0]]
        wanted = gradients[name] * min(1.0, 3.0 / norm)
        torch.testing.assert_close(parameter.grad.double(), wanted, rtol=1e-5, atol=1e-9)
    assert norms["dino_head"] < 3 < norms["ibot_head"]


def test_a_limit_of_zero_clips_nothing() -> None:
    network = nn.ModuleDict({"part": nn.Linear(3, 3)})
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    norm = clip_gradients(network, limit=0.0)["part"]
    assert norm.item() == pytest.approx(100 * 12**0.5)
    assert all((p.grad == 100).all() for p in network.parameters())


def test_the_teacher_by_hand() -> None:
    teacher, student = nn.Linear(1, 1), nn.Linear(1, 1)
    teacher.weight.data, student.weight.data = torch.tensor([[1.0]]), torch.tensor([[2.0]])
    teacher.bias.data, student.bias.data = torch.tensor([0.0]), torch.tensor([-10.0])
    move_teacher(teacher, student, momentum=0.75)
    assert (teacher.weight.item(), teacher.bias.item()) == (1.25, -2.5)
    assert student.weight.item() == 2.0
    move_teacher(teacher, student, momentum=1.0)
    assert teacher.weight.item() == 1.25
