"""DINO trains a ResNet and a ConvNeXt from scratch; the statistics of batch norms are part of the state."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from convnet_jobs import (
    CONVNEXT,
    RESNET,
    convnet_config,
    convnet_steps_job,
    noise,
    run_steps,
    statistics,
)
from pydantic import ValidationError
from rank_jobs import train_job
from ranks import run_ranks
from safetensors import safe_open
from tiny import share_of, tiny_config
from torch import Tensor

from pretrain.checkpoint_files import TEACHER, complete_steps, step_dir
from pretrain.config import ModelConfig
from pretrain.optimizer import OptimizerConfig, build_adamw, move_teacher, rule_of
from pretrain.parallel import place
from pretrain.train import build, plan_of, train
from pretrain.train_step import split_batch, to_batch, train_step

pytestmark = pytest.mark.usefixtures("one_thread")
FILES = ("teacher.safetensors", "student.safetensors", "training.safetensors", "training.json")


def student_of(state: Any) -> torch.nn.Module:
    network: torch.nn.Module = state.learners[0].student.network
    return network


def assert_same(got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert got.keys() == expected.keys()
    assert [name for name, tensor in expected.items() if not torch.equal(got[name], tensor)] == []


def test_dino_lowers_its_loss_on_a_resnet() -> None:
    config = convnet_config(schedule={"base_lr": 0.05, "lr_warmup": 0, "iterations": 30})
    _, losses = run_steps(config, 25, again=True)
    print(f"{losses[0]:.3f} -> {losses[-1]:.3f}")
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("arch", [RESNET, CONVNEXT])
def test_stopped_and_resumed_gives_the_same_bits(arch: str, drawn: Path, tmp_path: Path) -> None:
    def training(run_dir: Path) -> Path:
        config = convnet_config(
            arch,
            run_dir=str(run_dir),
            data={"path": str(drawn)},
            schedule={"iterations": 4},
            checkpoint={"every": 2, "keep": 3},
            model={"drop_path": 0.3},
        )
        return train(config, quiet=True)

    whole = training(tmp_path / "whole")
    shutil.copytree(step_dir(tmp_path / "whole", 2), step_dir(tmp_path / "resumed", 2))
    resumed = training(tmp_path / "resumed")
    for name in FILES:
        assert (resumed / name).read_bytes() == (whole / name).read_bytes(), name
    with safe_open(whole / TEACHER, "pt") as file:
        moved = [name for name in file.keys() if name.endswith("running_mean")]  # noqa: SIM118
        assert bool(moved) == (arch == RESNET)
        assert all(file.get_tensor(name).abs().sum() > 0 for name in moved)


def test_ranks_agree_on_the_mean_of_their_statistics() -> None:
    config = convnet_config()
    first, second = run_ranks(convnet_steps_job, 2, config, 2)
    for kind in ("student", "teacher"):
        for got, other in zip(first[kind], second[kind], strict=True):
            assert_same(got, other)
    assert_same(first["parameters"], second["parameters"])
    assert first["losses"] == pytest.approx(second["losses"])
    with place(config.parallel) as where:
        alone = []
        for rank in range(2):
            network = student_of(build(config, where))
            batch = to_batch(share_of(noise(), rank, 2), where)
            network.backbone([batch.globals_, batch.locals_])  # type: ignore[operator]
            alone.append(statistics(network))
    for name, got in first["student"][0].items():
        torch.testing.assert_close(got, (alone[0][name] + alone[1][name]) / 2)


@pytest.mark.accept
def test_another_number_of_ranks_goes_on(drawn: Path, tmp_path: Path) -> None:
    """Without anything drawn by rank the images are the same; what differs is what each rank counts."""
    config = convnet_config(
        run_dir=str(tmp_path / "run"),
        data={"path": str(drawn), "workers": 1},
        schedule={"iterations": 6},
        checkpoint={"every": 2, "keep": 3},
        model={"drop_path": 0.0},
    )
    run_ranks(train_job, 2, config, str(tmp_path / "notes"), {0: (3, signal.SIGTERM)})
    assert 6 not in complete_steps(tmp_path / "run")
    [folder] = run_ranks(train_job, 1, config, str(tmp_path / "alone"))
    assert folder == str(step_dir(tmp_path / "run", 6))


def test_micro_batches_have_statistics_of_their_own() -> None:
    """Once each, also where KoLeo wants a forward before."""
    config = convnet_config(accumulate=2, objective={"koleo_weight": 0.1})
    with place(config.parallel) as where:
        state, other = build(config, where), build(config, where)
        batch = noise()
        train_step(state, batch, plan_of(config), where)
        network = student_of(other)
        for part in split_batch(batch, 2):
            crops = to_batch(part, where)
            network.backbone([crops.globals_, crops.locals_])  # type: ignore[operator]
    assert_same(statistics(student_of(state)), statistics(network))


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_activations_computed_again_are_counted_once(dtype: str) -> None:
    change = {"model": {"drop_path": 0.3}}
    plain, again = (
        run_steps(convnet_config(parallel={"dtype": dtype, "checkpoint_activations": on}, **change), 2)
        for on in (False, True)
    )
    assert plain[1] == again[1]
    assert_same(student_of(plain[0]).state_dict(), student_of(again[0]).state_dict())


def test_a_step_that_is_not_taken_leaves_the_statistics() -> None:
    config = convnet_config()
    with place(config.parallel) as where:
        state = build(config, where)
        network = student_of(state)
        before = statistics(network)
        with torch.no_grad():
            network.dino_head.get_parameter("last_layer.weight_v").mul_(float("inf"))
        outcome = train_step(state, noise(), plan_of(config), where)
    assert outcome.records[0]["skipped"]
    assert_same(statistics(network), before)


def test_a_bf16_copy_keeps_statistics_in_fp32() -> None:
    rough, exact = (run_steps(convnet_config(parallel={"dtype": dtype}), 2) for dtype in ("bf16", "fp32"))
    assert rough[1] == pytest.approx(exact[1], rel=0.02)
    student = rough[0].learners[0].student
    assert student.working is not student.network
    for name, buffer in student.network.named_buffers():
        assert buffer.dtype is torch.float32
        assert student.working.get_buffer(name) is buffer
        wanted = student_of(exact[0]).get_buffer(name)
        torch.testing.assert_close(buffer, wanted, rtol=0.05, atol=0.02)


def test_the_teacher_s_statistics_are_a_mean() -> None:
    config = convnet_config()
    with place(config.parallel) as where:
        state = build(config, where)
    teacher, student = state.teacher.network, student_of(state)
    for buffer in student.buffers():
        buffer.fill_(5.0)
    move_teacher(teacher, student, momentum=0.75)
    for name, buffer in teacher.named_buffers():
        assert buffer.unique().tolist() == [1.25 if name.endswith("mean") else 2.0]


def test_layers_of_a_resnet_learn_by_their_stage() -> None:
    config = OptimizerConfig(layer_decay=0.5, patch_embed_lr=0.2)
    with place((given := convnet_config()).parallel) as where:
        network = student_of(build(given, where))
    rules = {
        name: rule_of(name, depth=4, config=config, is_vector=parameter.ndim == 1)
        for name, parameter in network.named_parameters()
    }
    assert {rule.lr for name, rule in rules.items() if ".stem." in name} == {0.5**5}
    for stage in range(4):
        found = {rule.lr for name, rule in rules.items() if f"blocks.{stage}." in name}
        assert found == {0.5 ** (4 - stage)}
    norms = [name for name in rules if ".bn" in name or ".downsample.2." in name]
    assert norms
    assert all(rules[name].weight_decay == 0 for name in norms)
    assert all(r.weight_decay == 1 for n, r in rules.items() if n.endswith("conv1.weight"))
    groups = build_adamw(network.named_parameters(), depth=4, config=config).param_groups
    assert sum(len(group["params"]) for group in groups) == len(rules)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": {"ibot_weight": 1.0}}, "objective.ibot_weight and masking.probability to 0"),
        ({"model": {"registers": 4, "ffn": "mlp"}}, "ffn, registers shape a vision transformer"),
        ({"model": {"arch": "timm:Resnet 50"}}, "no such architecture: 'timm:Resnet 50'; one of vit_micro"),
        ({"crops": {"local_size_px": 16}}, "takes crops of 32 px and more, not 16"),
    ],
)
def test_what_a_convolutional_network_has_not_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        convnet_config(**change)


def test_the_fields_of_a_transformer_may_be_left_as_they_are() -> None:
    model = ModelConfig(arch="timm:resnet50", patch_px=16)
    assert ModelConfig.model_validate(model.model_dump()) == model
    assert tiny_config().model.timm_name is None
