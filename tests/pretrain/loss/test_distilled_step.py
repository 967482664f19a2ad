"""A step of distillation: its losses against loops, its gradients however the batch is cut."""

import hashlib
from pathlib import Path

import distillation_loops as loops
import pytest
import torch
from distilled import COARSE, HALF, HERE, backbone_file, distillation
from rank_jobs import distilled_gradients_job
from ranks import run_ranks
from tiny import NUM_PATCHES, drawn_batch
from torch import Tensor, nn

from curation.errors import ConfigError
from pretrain.distill import build, plan_of
from pretrain.distill_config import DistillConfig
from pretrain.teacher import load_teacher
from pretrain.train_step import leave_gradients, to_batch


def gradients(config: DistillConfig, num_images: int = 8) -> tuple[dict[str, Tensor], dict[str, float]]:
    teacher = load_teacher(config.teacher, HERE, warn=pytest.fail)
    state = build(config, teacher, HERE)
    sums, _ = leave_gradients(state, drawn_batch(num_images), plan_of(config, teacher), HERE)
    named = [
        (f"{learner.folder.name}.{name}", parameter)
        for learner in state.learners
        for name, parameter in learner.student.network.named_parameters()
    ]
    values = {
        f"{learner.folder.name}.{name}": value.item()
        for learner, found in zip(state.learners, sums, strict=True)
        for name, value in zip(found.names, found.mean(), strict=True)
    }
    return {name: p.grad for name, p in named if p.grad is not None}, values


@torch.no_grad()
def test_features_are_learned_of_a_teacher_without_heads(drawn: Path, tmp_path: Path) -> None:
    """Against loops in fp64, at grids that differ: 4 × 4 of the teacher, 2 × 2 of a student."""
    file = backbone_file(tmp_path / "t")
    weights = {"cls_weight": 0.7, "patches_weight": 1.3}
    config = distillation(drawn, file, tmp_path / "run", features=weights)
    found = load_teacher(config.teacher, HERE, warn=pytest.fail)
    assert not found.has_heads
    assert found.link == {
        "path": str(file), "step": None, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()
    }  # fmt: skip
    with torch.enable_grad():
        grads, values = gradients(config)
    assert {name.split(".")[1] for name in grads} == {"backbone", "feature_head"}
    images = to_batch(drawn_batch(8), HERE).globals_
    [wanted] = found.network.backbone([images])
    for learner, side in zip(build(config, found, HERE).learners, (4, 2), strict=True):
        network = learner.student.network
        [features] = network.backbone([images])
        guesses = network.feature_head(features.cls, features.patches)
        cls, patches = loops.features(
            guesses.cls.double().numpy(),
            guesses.patches.double().numpy().reshape(16, side, side, -1),
            wanted.cls.double().numpy(),
            wanted.patches.double().numpy().reshape(16, 4, 4, -1),
        )
        name = f"{learner.folder.name}.features"
        assert values[name] == pytest.approx(0.7 * cls + 1.3 * patches, rel=2e-5)
        assert values[f"{learner.folder.name}.loss"] == pytest.approx(values[name])


@pytest.mark.parametrize("heads", ["carried", "none"])
def test_accumulated_gradients_are_those_of_the_batch(
    heads: str, drawn: Path, teacher: Path, tmp_path: Path
) -> None:
    change = {"teacher": {"path": str(teacher), "heads": heads}, "objective": {"centring": "sinkhorn"}}
    whole, parts = (
        gradients(distillation(drawn, teacher, tmp_path, **change, accumulate=accumulate))
        for accumulate in (1, 4)
    )
    largest = max(gradient.abs().max() for gradient in whole[0].values())
    for name, gradient in whole[0].items():
        assert (gradient - parts[0][name]).abs().max() <= 1e-5 * largest, name
    assert parts[1] == pytest.approx(whole[1], rel=1e-5)


@pytest.mark.accept
@pytest.mark.parametrize("heads", ["carried", "none"])
def test_gradients_of_two_ranks_are_those_of_one(
    heads: str, drawn: Path, teacher: Path, tmp_path: Path
) -> None:
    config = distillation(drawn, teacher, tmp_path, teacher={"path": str(teacher), "heads": heads})
    [alone] = run_ranks(distilled_gradients_job, 1, config)
    largest = max(gradient.abs().max() for gradient in alone.values())
    for found in run_ranks(distilled_gradients_job, 2, config):
        for name, gradient in alone.items():
            assert (gradient - found[name]).abs().max() <= 1e-5 * largest, name


def test_another_grid_is_resampled_to_the_teachers(drawn: Path, teacher: Path, tmp_path: Path) -> None:
    """iBOT of a student of 2 × 2 patches, at positions of 4 × 4, against a plain interpolation."""
    config = distillation(drawn, teacher, tmp_path, students={"coarse": COARSE})
    found = load_teacher(config.teacher, HERE, warn=pytest.fail)
    _, values = gradients(config)
    state = build(config, found, HERE)
    batch = to_batch(drawn_batch(8), HERE)
    network = state.learners[0].student.network
    with torch.no_grad():
        [views] = network.backbone([batch.globals_])
        maps = views.patches.mT.unflatten(2, (2, 2))
        patches = nn.functional.interpolate(maps, size=(4, 4), mode="bilinear").flatten(2).mT
        logits = network.ibot_head(patches.flatten(0, 1)).unflatten(0, (16, NUM_PATCHES)) / 0.1
        [seen] = found.network.backbone([batch.globals_])
        scores = found.network.ibot_head(seen.patches.flatten(0, 1)).unflatten(0, (16, NUM_PATCHES))
        targets = ((scores - state.centres.patches) / 0.07).softmax(2)
        apart = -(targets * logits.log_softmax(2)).sum(2)
        expected = ((apart * batch.masks).sum(1) / batch.masks.sum(1).clamp(min=1)).sum() / 16
    assert values["coarse.ibot"] == pytest.approx(expected.item(), rel=1e-4)


def test_masked_students_see_mask_tokens(drawn: Path, teacher: Path, tmp_path: Path) -> None:
    seeing, masked = (
        gradients(distillation(drawn, teacher, tmp_path, students={"half": HALF}, mask_students=is_masked))
        for is_masked in (False, True)
    )
    # Nobody learns of a token that is never in a student's sight.
    assert "half.backbone.mask_token" not in seeing[0]
    assert masked[0]["half.backbone.mask_token"].abs().max() > 0
    with pytest.raises(ConfigError, match="Student coarse cannot be masked"):
        gradients(distillation(drawn, teacher, tmp_path, mask_students=True))
