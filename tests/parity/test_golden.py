"""Parity with the official DINOv2 code, over every case in LVD_GOLDEN_DIR (default: tests/data/golden).

The README beside the cases says what each tensor is, and which differences are rounding.
"""

import json

import pytest
import torch
from golden import CASES, GOLDEN, Case
from torch import Tensor

from pretrain.loss.group import Alone
from pretrain.loss.koleo import koleo_loss
from pretrain.loss.sinkhorn import sinkhorn_knopp
from pretrain.model.vit import VisionTransformer
from pretrain.optimizer import OptimizerConfig, move_teacher, rule_of
from pretrain.schedules import ScheduleConfig, scheduled

FEATURES = 1e-5  # absolute
LOSS = 1e-5  # relative
GRADIENT = 1e-4  # of the largest gradient of a tensor
NOISE = 1e-6  # of the largest gradient of the model: below it a gradient is rounding, as of the key's bias


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def backbone(case: Case) -> VisionTransformer:
    return case.network("student").backbone.eval()


def assert_close(got: Tensor, expected: Tensor) -> None:
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, rtol=0, atol=FEATURES)


def test_there_are_cases() -> None:
    assert CASES, f"no case in {GOLDEN}"
    assert (GOLDEN / "schedules.json").is_file()


@torch.no_grad()
def test_masked_class_token(case: Case) -> None:
    [features] = backbone(case)([case.batch.globals_], [case.batch.masks])
    assert_close(features.cls, case.tensors["out.student_global_cls"])


@torch.no_grad()
def test_masked_patches(case: Case) -> None:
    [features] = backbone(case)([case.batch.globals_], [case.batch.masks])
    assert_close(features.patches, case.tensors["out.student_global_patch"])


@torch.no_grad()
def test_masked_tokens_before_the_norm(case: Case) -> None:
    [features] = backbone(case)([case.batch.globals_], [case.batch.masks])
    assert_close(features.prenorm, case.tensors["out.student_global_prenorm"])


@torch.no_grad()
def test_unmasked_class_token_of_another_grid(case: Case) -> None:
    [features] = backbone(case)([case.batch.locals_])
    assert_close(features.cls, case.tensors["out.student_local_cls"])


@torch.no_grad()
def test_two_groups_in_one_forward(case: Case) -> None:
    views, crops = backbone(case)([case.batch.globals_, case.batch.locals_], [case.batch.masks, None])
    assert_close(views.cls, case.tensors["out.student_global_cls"])
    assert_close(crops.cls, case.tensors["out.student_local_cls"])


@torch.no_grad()
def test_rectangular_class_token(case: Case) -> None:
    [features] = backbone(case)([case.tensors["in.rect"]])
    assert_close(features.cls, case.tensors["out.rect_cls"])


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("part", ["cls", "patch"])
@torch.no_grad()
def test_rectangular_last_layers(case: Case, layer: int, part: str) -> None:
    cls, patches = backbone(case).intermediate_layers(case.tensors["in.rect"], 2)[layer]
    assert_close(cls if part == "cls" else patches, case.tensors[f"out.rect_layer{layer}_{part}"])


@torch.no_grad()
def test_teacher_head(case: Case) -> None:
    teacher = case.network("teacher")
    [features] = teacher.backbone([case.batch.globals_])
    assert_close(teacher.dino_head(features.cls), case.tensors["out.teacher_head_cls"])


def test_sinkhorn(case: Case) -> None:
    temperature = case.facts["teacher_temp"]
    assert_close(
        sinkhorn_knopp(case.tensors["in.sk_logits"], temperature=temperature, group=Alone()),
        case.tensors["out.sk"],
    )


def test_koleo(case: Case) -> None:
    loss = koleo_loss(case.tensors["in.koleo"], group=Alone())
    torch.testing.assert_close(loss, case.tensors["out.koleo"][0], rtol=LOSS, atol=0)


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("term", ["dino_local", "dino_global", "ibot", "koleo"])
def test_loss(case: Case, term: str, step: int) -> None:
    shown = {"dino_local": "dino_local_crops", "dino_global": "dino_global_crops"}.get(term, term)
    halved = 2 if term in ("ibot", "koleo") else 1  # as the official log shows them
    got = getattr(case.steps[0][step], term).item()
    assert got == pytest.approx(halved * case.facts["losses"][step][f"{shown}_loss"], rel=LOSS)


def test_gradients(case: Case) -> None:
    got = {name: p.grad for name, p in case.steps[1].named_parameters()}
    expected = case.under("grad")
    assert set(got) == set(expected)
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    wrong = {}
    for name, gradient in expected.items():
        assert got[name] is not None, name
        scale = max(gradient.abs().max().item(), NOISE * largest)
        error = (got[name] - gradient).abs().max().item() / scale
        if error > GRADIENT:
            wrong[name] = error
    assert not wrong


def test_key_bias_gradient_is_noise(case: Case) -> None:
    got = {name: p.grad for name, p in case.steps[1].named_parameters()}
    expected = case.under("grad")
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    for name in expected:
        if name.endswith("attn.qkv.bias"):
            key = expected[name].chunk(3)[1]
            assert (got[name].chunk(3)[1] - key).abs().max().item() <= GRADIENT * largest


def test_teacher_after_one_step(case: Case) -> None:
    student, teacher = case.network("student"), case.network("teacher")
    move_teacher(teacher, student, momentum=case.facts["ema_momentum"])
    got, expected = teacher.state_dict(), case.under("ema")
    assert set(got) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-6, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


def test_parameter_groups(case: Case) -> None:
    config = OptimizerConfig(layer_decay=0.9, patch_embed_lr=0.2)
    depth = case.facts["depth"]
    # Named within their module, module by module.
    expected = [(group.pop("name"), group) for group in map(dict, case.facts["param_groups"])]
    for full, _ in case.network("student").named_parameters():
        rule = rule_of(full, depth=depth, config=config)
        name = full.partition(".")[2]
        found = next(i for i, (other, _) in enumerate(expected) if other == name)
        group = expected.pop(found)[1]
        assert rule.lr == pytest.approx(group["lr_multiplier"], rel=1e-12), full
        assert rule.weight_decay == group["wd_multiplier"], full
        assert rule.is_last_layer == group["is_last_layer"], full
    assert not expected


@pytest.mark.parametrize("value", ["lr", "weight_decay", "momentum", "teacher_temp", "last_layer_lr"])
def test_schedule(value: str) -> None:
    golden = json.loads((GOLDEN / "schedules.json").read_text())
    facts = golden["config"]
    length = facts["epoch_length"]
    config = ScheduleConfig(
        iterations=facts["epochs"] * length,
        base_lr=facts["lr"],
        min_lr=facts["min_lr"],
        lr_warmup=facts["warmup_epochs"] * length,
        freeze_last_layer=facts["freeze_last_layer_epochs"] * length,
        weight_decay=facts["weight_decay"],
        weight_decay_end=facts["weight_decay_end"],
        momentum=float(facts["momentum"][0]),
        momentum_end=float(facts["momentum"][1]),
        teacher_temperature=facts["teacher_temp"][1],
        teacher_temperature_start=facts["teacher_temp"][0],
        teacher_temperature_warmup=facts["warmup_teacher_temp_epochs"] * length,
    )
    name = {"teacher_temp": "teacher_temperature"}.get(value, value)
    got = [getattr(scheduled(i, config), name) for i in range(len(golden[value]))]
    assert got == pytest.approx(golden[value], rel=1e-9, abs=1e-12)
