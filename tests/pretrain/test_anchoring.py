"""Gram anchoring in a training: its term, when its teacher is replaced, and that nothing of it is lost."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from convnet_jobs import convnet_config, noise
from pydantic import ValidationError
from rank_jobs import NUM_IMAGES, backward_job, roughened, train_job
from ranks import run_ranks
from safetensors.torch import load_file
from tiny import GLOBAL_PX, PATCH_PX, drawn_batch, tiny_config
from torch import Tensor

from pretrain.anchor import Anchor
from pretrain.checkpoint_files import GRAM, MARKER, TEACHER, step_dir
from pretrain.config import PretrainConfig
from pretrain.metrics import read_metrics
from pretrain.parallel import place
from pretrain.train import build, plan_of, train
from pretrain.train_step import leave_gradients, to_batch, train_step

pytestmark = pytest.mark.usefixtures("one_thread")
AT_ONCE = {"warmup": 0, "weight": 1.5, "every": None}


def gap_by_hand(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over images and pairs of patches of the squared difference of cosines, patch by patch."""
    found = []
    for ours, theirs in zip(student.double(), teacher.double(), strict=True):
        for p in range(len(ours)):
            a, b = (torch.cosine_similarity(x[p], x, dim=1) for x in (ours, theirs))
            found.append((a - b) ** 2)
    return torch.stack(found).mean()


@pytest.mark.parametrize("gram_px", [None, 2 * GLOBAL_PX])
def test_the_term_of_a_step_by_hand(gram_px: int | None) -> None:
    """With crops of its own the Gram teacher's map is resized to the student's grid, bicubic."""
    config = tiny_config(gram=AT_ONCE)
    crops = drawn_batch(4)
    if gram_px:
        rng = torch.Generator().manual_seed(5)
        crops = crops._replace(gram=torch.randint(0, 256, (8, 3, gram_px, gram_px), generator=rng).byte())
    with place(config.parallel) as where:
        state, without = roughened(config, where), roughened(tiny_config(), where)
        student, teacher = state.learners[0].student.network.backbone, state.teacher.network.backbone
        batch = to_batch(crops, where)
        [views, _] = student([batch.globals_, batch.locals_], [batch.masks, None])
        with torch.no_grad():
            seen = (
                batch.globals_ if gram_px is None else to_batch(crops._replace(globals_=crops.gram), where)[0]
            )
            theirs = teacher([seen])[0].patches
        if gram_px:
            side, grid = gram_px // PATCH_PX, GLOBAL_PX // PATCH_PX
            maps = theirs.reshape(8, side, side, -1).permute(0, 3, 1, 2)
            maps = torch.nn.functional.interpolate(maps, size=(grid, grid), mode="bicubic")
            theirs = maps.permute(0, 2, 3, 1).reshape(8, grid * grid, -1)
        expected = 1.5 * gap_by_hand(views.patches, theirs)
        parameters = [
            p for name, p in student.named_parameters() if "pos_embed" in name or "qkv.weight" in name
        ]
        slopes = torch.autograd.grad(expected, parameters)
        [sums], _ = leave_gradients(state, crops, plan_of(config), where)
        leave_gradients(without, crops, plan_of(tiny_config()), where)
        plain = dict(without.learners[0].student.network.backbone.named_parameters())
        names = {id(p): name for name, p in student.named_parameters()}
        assert sums.names[-2:] == ("gram", "loss")
        assert sums.mean()[-2].item() == pytest.approx(expected.item(), rel=1e-5)
        for parameter, slope in zip(parameters, slopes, strict=True):
            found = parameter.grad - plain[names[id(parameter)]].grad
            torch.testing.assert_close(
                found, slope.float(), rtol=1e-3, atol=1e-5 * parameter.grad.abs().max()
            )
        record = train_step(state, crops, plan_of(config), where).records[0]
        assert record["gram_weight"] == 1.5
        assert record["gram"] == pytest.approx(expected.item(), rel=1e-5)


def same_gradients(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name, gradient in one["gradients"].items():
        torch.testing.assert_close(
            other["gradients"][name], gradient, rtol=0, atol=1e-5 * float(gradient.abs().max())
        )
    torch.testing.assert_close(one["losses"], other["losses"], rtol=1e-5, atol=1e-6)


def test_in_micro_batches_it_is_that_of_the_batch() -> None:
    whole, pieces = (backward_job(tiny_config(gram=AT_ONCE, accumulate=n)) for n in (1, 4))
    assert len(whole["losses"]) == 5
    same_gradients(whole, pieces)


@pytest.mark.accept
@pytest.mark.parametrize("over", ["image", "batch"])
def test_on_two_ranks_it_is_that_of_the_batch(over: str) -> None:
    """The Gram teacher is sharded as the teacher is, whose shards it takes."""
    config = tiny_config(gram={**AT_ONCE, "over": over})
    first, _ = run_ranks(backward_job, 2, config)
    alone = backward_job(config)
    for name, gradient in alone["gradients"].items():
        torch.testing.assert_close(
            first["gradients"][name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max())
        )


def test_the_working_copy_in_bf16_is_the_teachers() -> None:
    half = tiny_config(gram=AT_ONCE, parallel={"dtype": "bf16"})
    with place(half.parallel) as where:
        state = roughened(half, where)
        [sums], _ = leave_gradients(state, drawn_batch(NUM_IMAGES), plan_of(half), where)
        assert state.anchor is not None
        assert state.anchor.placed is not None
        pairs = zip(
            state.anchor.placed.working.parameters(), state.teacher.working.backbone.parameters(), strict=True
        )
        assert all(own.dtype is torch.bfloat16 and torch.equal(own, other) for own, other in pairs)
    exact = backward_job(tiny_config(gram=AT_ONCE))["losses"][-1]
    torch.testing.assert_close(sums.mean()[-2], exact, rtol=0.05, atol=0)


def test_of_a_convolutional_network_it_has_the_statistics_too() -> None:
    """And its step is one of the term; there is no mask token in such a network."""
    config = convnet_config(gram=AT_ONCE)
    with place(config.parallel) as where:
        state = build(config, where)
        for buffer in state.teacher.network.buffers():
            buffer.add_(0.5)
        record = train_step(state, noise(), plan_of(config), where).records[0]
        assert state.anchor is not None
        assert state.anchor.network is not None
        saved = dict(state.anchor.network.named_buffers())
        assert saved
        assert all(bool((buffer >= 0.5).all()) for buffer in saved.values())
        assert np.isfinite(record["gram"])
        assert record["gram"] > 0


def training(dataset: Path, run_dir: Path, **change: Any) -> PretrainConfig:
    """First anchored in iteration 2 (the third), anew in 5: between them lies the checkpoint of step 4."""
    base = {
        "run_dir": str(run_dir),
        "data": {"path": str(dataset), "workers": 0},
        "checkpoint": {"every": 2, "keep": 9},
        "model": {"drop_path": 0.3},
        "schedule": {"iterations": 8, **change.pop("schedule", {})},
    }
    gram = change.pop("gram", {"start": 2, "every": 3, "warmup": 2, "max_updates": None})
    return tiny_config(**base, gram=gram, **change)


def bits(run_dir: Path, step: int) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(step_dir(run_dir, step).glob("*.safetensors"))}


def backbone_of(run_dir: Path, step: int) -> dict[str, Tensor]:
    tensors = load_file(step_dir(run_dir, step) / TEACHER)
    return {name: tensor for name, tensor in tensors.items() if name.startswith("backbone.")}


def gram_of(run_dir: Path, step: int) -> dict[str, Tensor]:
    return load_file(step_dir(run_dir, step) / GRAM)


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def trunk(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("anchoring") / "trunk"
    train(training(drawn, run_dir), quiet=True)
    return run_dir


def test_what_the_checkpoints_and_the_metrics_of_a_training_have(trunk: Path) -> None:
    assert not (step_dir(trunk, 2) / GRAM).exists()
    assert equal(gram_of(trunk, 4), backbone_of(trunk, 2))
    assert not equal(gram_of(trunk, 6), gram_of(trunk, 4))
    assert equal(gram_of(trunk, 8), gram_of(trunk, 6))
    assert GRAM in json.loads((step_dir(trunk, 4) / MARKER).read_text())
    lines = read_metrics(trunk)
    assert [line["gram_weight"] for line in lines] == [0.0, 0.0, 0.0, 1.0, 2.0, 2.0, 2.0, 2.0]
    # While its weight is 0 there is no such term: the Gram teacher is not asked.
    assert ["gram" in line for line in lines] == [False] * 3 + [True] * 5
    assert lines[5]["gram"] > 0


@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.accept)])
def test_killed_around_a_replacement_it_comes_to_the_same_bits(
    size: int, drawn: Path, trunk: Path, tmp_path: Path
) -> None:
    whole, again = trunk, tmp_path / "again"
    if size > 1:
        whole = tmp_path / "whole"
        run_ranks(train_job, size, training(drawn, whole), str(tmp_path / "notes"))
    config = training(drawn, again)
    # Before there is one; with the one of iteration 2, just before the next; and with that one.
    for at, how in ((3, signal.SIGKILL), (6, signal.SIGKILL), (7, signal.SIGTERM)):
        run_ranks(train_job, size, config, str(tmp_path / "n"), {size - 1: (at, how)}, may_die=True)
    run_ranks(train_job, size, config, str(tmp_path / "n"))
    for step in (4, 6, 8):
        assert bits(again, step) == bits(whole, step)
    assert GRAM in bits(again, 8)


def test_a_branch_carries_it_over_and_one_without_has_none(drawn: Path, trunk: Path, tmp_path: Path) -> None:
    start = {"checkpoint": str(step_dir(trunk, 4))}
    train(training(drawn, tmp_path / "same", start=start), quiet=True)
    assert bits(tmp_path / "same", 6) == bits(trunk, 6)
    train(training(drawn, tmp_path / "none", start=start, gram=None, schedule={"iterations": 5}), quiet=True)
    assert GRAM not in bits(tmp_path / "none", 5)
    assert "gram_weight" not in read_metrics(tmp_path / "none")[0]


def test_a_stage_at_another_size_carries_it_over(drawn: Path, trunk: Path, tmp_path: Path) -> None:
    config = training(
        drawn,
        tmp_path,
        start={"checkpoint": str(step_dir(trunk, 4)), "schedule": "anew"},
        gram={"warmup": 0, "every": 3},
        crops={"global_size_px": 64},
        schedule={"iterations": 2},
    )
    train(config, quiet=True)
    was, now = gram_of(trunk, 4), gram_of(tmp_path, 2)
    assert {name for name in was if was[name].shape != now[name].shape} == {"backbone.pos_embed"}
    assert all(torch.equal(was[name], now[name]) for name in was if "pos_embed" not in name)
    assert read_metrics(tmp_path)[0]["gram"] > 0


def test_a_training_that_begins_after_its_start_takes_the_teacher_it_has(
    drawn: Path, trunk: Path, tmp_path: Path
) -> None:
    start = {"checkpoint": str(step_dir(trunk, 2))}
    config = training(drawn, tmp_path, start=start, gram={"every": None}, schedule={"iterations": 4})
    train(config, quiet=True)
    assert equal(gram_of(tmp_path, 4), backbone_of(trunk, 2))


def test_a_teacher_by_name_is_the_first(drawn: Path, trunk: Path, tmp_path: Path) -> None:
    """One that is named anew goes before one that would be carried over."""
    gram = {"teacher": str(step_dir(trunk, 6)), "max_updates": 0, "warmup": 0}
    train(
        training(drawn, tmp_path / "new", gram=gram, schedule={"iterations": 1, "lr_warmup": 1}), quiet=True
    )
    assert equal(gram_of(tmp_path / "new", 1), backbone_of(trunk, 6))
    start = {"checkpoint": str(step_dir(trunk, 4)), "schedule": "anew"}
    config = training(
        drawn, tmp_path / "named", gram=gram, start=start, schedule={"iterations": 1, "lr_warmup": 1}
    )
    train(config, quiet=True)
    assert equal(gram_of(tmp_path / "named", 1), backbone_of(trunk, 6))


def test_while_its_weight_is_zero_the_gram_teacher_is_not_asked(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    on = Anchor.on
    monkeypatch.setattr(Anchor, "on", lambda self, *a, step: asked.append(step) or on(self, *a, step=step))
    train(training(drawn, tmp_path, schedule={"iterations": 4}), quiet=True)
    assert asked == [3]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gram": {"over": "batch"}, "accumulate": 2}, "set gram.over to image, or accumulate to 1"),
        ({"gram": {"over": "rank"}, "accumulate": 2}, "set gram.over to image, or accumulate to 1"),
        ({"gram": {"start": 20}}, "gram.start 20 is after the last of 20 iterations"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        tiny_config(**change)
