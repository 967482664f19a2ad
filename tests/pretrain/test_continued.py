"""Made longer, cooled down, branched, or another stage: a training begins with what another has come to."""

import hashlib
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_jobs import train_job
from ranks import run_ranks
from safetensors.torch import load_file
from tiny import tiny_config

from curation.errors import ConfigError, IntegrityError
from pretrain.checkpoint_files import MARKER, TEACHER, complete_steps, read_facts, step_dir
from pretrain.config import PretrainConfig
from pretrain.metrics import read_metrics
from pretrain.train import train

WEIGHTS = (TEACHER, "student.safetensors", "training.safetensors")


def training(dataset: Path, run_dir: Path, **change: Any) -> PretrainConfig:
    base = {
        "run_dir": str(run_dir),
        "data": {"path": str(dataset), "workers": 0},
        "checkpoint": {"every": 2, "keep": 9},
        "model": {"drop_path": 0.3, **change.pop("model", {})},
        "objective": {"centring": "softmax"},
        "schedule": {"iterations": 6, **change.pop("schedule", {})},
    }
    return tiny_config(**base, **change)


def bits(run_dir: Path, step: int) -> dict[str, bytes]:
    return {name: (step_dir(run_dir, step) / name).read_bytes() for name in WEIGHTS}


@pytest.fixture(scope="module")
def six(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("continued") / "six"
    train(training(drawn, run_dir), quiet=True)
    return run_dir


@pytest.mark.parametrize("at", [4, 6], ids=["cooled down early", "made longer"])
def test_a_tail_that_is_added_is_one_that_was_planned(at: int, drawn: Path, tmp_path: Path) -> None:
    """A run directory, stopped at `at` without knowing of this tail, and one that knew it from the start."""
    tail = {"at": at, "iterations": 3, "base_lr": 2e-3, "warmup": 1, "shape": "cosine"}
    planned = training(drawn, tmp_path / "planned", schedule={"tail": tail})
    assert train(planned, quiet=True).name == f"step-{at + 3:08d}"
    run_dir = tmp_path / "added"
    stopped = training(drawn, run_dir, schedule={"tail": {"at": at, "iterations": 99}} if at < 6 else {})
    run_ranks(train_job, 1, stopped, str(tmp_path / "notes"), {0: (at, signal.SIGTERM)} if at < 6 else None)
    newest = complete_steps(run_dir)[-1]
    assert newest in (at, at + 1)
    if newest > at:  # SIGTERM in the middle of a step lets one more be taken
        for name in WEIGHTS:
            (step_dir(run_dir, newest) / name).unlink()
    train(training(drawn, run_dir, schedule={"tail": tail}), quiet=True)
    assert bits(run_dir, at + 3) == bits(tmp_path / "planned", at + 3)


def test_a_tail_that_would_change_the_past_is_refused(drawn: Path, six: Path) -> None:
    with pytest.raises(ConfigError, match=r"schedule\.tail: .*, was null\. Change it back; or branch"):
        train(training(drawn, six, schedule={"tail": {"at": 3, "iterations": 9}}), quiet=True)


def test_a_branch_that_changes_nothing_is_the_trunk(drawn: Path, six: Path, tmp_path: Path) -> None:
    checkpoint = step_dir(six, 2)
    branch = training(drawn, tmp_path, start={"checkpoint": str(checkpoint)})
    train(branch, quiet=True)
    assert bits(tmp_path, 6) == bits(six, 6)
    facts = read_facts(step_dir(tmp_path, 6))
    digest = hashlib.sha256((checkpoint / MARKER).read_bytes()).hexdigest()
    assert facts["parent"] == {"path": str(checkpoint), "step": 2, "sha256": digest}
    assert (facts["first_step"], facts["first_image"], facts["images_seen"]) == (2, 16, 48)
    assert [line["step"] for line in read_metrics(tmp_path)] == [3, 4, 5, 6]


def test_a_branch_of_another_batch_goes_on_with_the_images_that_come_next(
    drawn: Path, six: Path, tmp_path: Path
) -> None:
    """And stopped by SIGKILL in mid-step it comes to the same bits."""
    start = {"checkpoint": str(step_dir(six, 4))}
    change = {"batch_images": 4, "schedule": {"base_lr": 1e-3}, "start": start}
    whole, again = tmp_path / "whole", tmp_path / "again"
    run_ranks(train_job, 1, training(drawn, whole, **change), str(tmp_path / "notes"))
    seen = [json.loads(line)[1] for line in (tmp_path / "notes-0").read_text().splitlines()]
    run_ranks(train_job, 1, training(drawn, tmp_path / "trunk"), str(tmp_path / "trunk-notes"))
    trunk = [json.loads(line)[1] for line in (tmp_path / "trunk-notes-0").read_text().splitlines()]
    assert seen[0] + seen[1] == trunk[4]
    config = training(drawn, again, **change)
    run_ranks(train_job, 1, config, str(tmp_path / "n"), {0: (6, signal.SIGKILL)}, may_die=True)
    run_ranks(train_job, 1, config, str(tmp_path / "n"))
    assert bits(again, 6) == bits(whole, 6)


def adapted(dataset: Path, run_dir: Path, six: Path, **change: Any) -> PretrainConfig:
    start = {"checkpoint": str(six), "schedule": "anew", **change.pop("start", {})}
    crops = {"global_size_px": 64, "local_size_px": 16}
    return training(dataset, run_dir, start=start, crops=crops, accumulate=2, **change)


@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.accept)])
def test_another_stage_carries_everything_over(size: int, drawn: Path, six: Path, tmp_path: Path) -> None:
    """Twice the size, a schedule of its own; killed in mid-step and stopped, to the same bits."""
    whole, again = tmp_path / "whole", tmp_path / "again"
    run_ranks(train_job, size, adapted(drawn, whole, six), str(tmp_path / "notes"))
    assert complete_steps(whole) == [2, 4, 6]
    lines = read_metrics(whole)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[0]["lr"] == 0.0  # warmed up anew
    assert lines[-1]["images_seen"] == 96
    config = adapted(drawn, again, six)
    for at, how in ((3, signal.SIGKILL), (5, signal.SIGTERM)):
        run_ranks(train_job, size, config, str(tmp_path / "n"), {size - 1: (at, how)}, may_die=True)
    run_ranks(train_job, size, config, str(tmp_path / "n"))
    assert bits(again, 6) == bits(whole, 6)


def test_what_a_stage_begins_with(drawn: Path, six: Path, tmp_path: Path) -> None:
    """At a rate of zero nothing moves: what is saved is what was carried over."""
    still = {"iterations": 1, "lr_warmup": 1, "momentum": 1.0}
    train(adapted(drawn, tmp_path, six, schedule=still), quiet=True)
    was, now = (load_file(step_dir(*at) / TEACHER) for at in ((six, 6), (tmp_path, 1)))
    assert was.keys() == now.keys()
    moved = {name for name in was if was[name].shape != now[name].shape}
    assert moved == {"backbone.pos_embed"}
    assert all(torch.equal(was[name], now[name]) for name in was.keys() - moved)
    assert now["backbone.pos_embed"].shape == (1, 1 + 64, 96)
    torch.testing.assert_close(now["backbone.pos_embed"][:, 0], was["backbone.pos_embed"][:, 0])
    moments = load_file(step_dir(tmp_path, 1) / "training.safetensors")
    before = load_file(step_dir(six, 6) / "training.safetensors")
    assert torch.equal(moments["step.dino_head.mlp.0.weight"], before["step.dino_head.mlp.0.weight"] + 1)
    assert (moments["exp_avg_sq.backbone.pos_embed"] >= 0).all()
    anew = tmp_path / "anew"
    train(adapted(drawn, anew, six, schedule=still, start={"optimizer": False}), quiet=True)
    assert load_file(step_dir(anew, 1) / "training.safetensors")["step.dino_head.mlp.0.weight"] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": {"depth": 1}}, "another backbone than model asks for"),
        ({"heads": {"prototypes": 8}}, "other heads than this training has"),
        ({"start": {"checkpoint": "/nowhere"}}, "no checkpoint to begin with"),
    ],
)
def test_what_cannot_be_begun_with(
    change: dict[str, Any], said: str, drawn: Path, six: Path, tmp_path: Path
) -> None:
    config = {"start": {"checkpoint": str(six)}, **change}
    with pytest.raises(ConfigError, match=said):
        train(training(drawn, tmp_path / "run", **config), quiet=True)


def test_a_damaged_checkpoint_is_not_begun_with(drawn: Path, tmp_path: Path) -> None:
    trunk = tmp_path / "trunk"
    train(training(drawn, trunk, schedule={"iterations": 2}), quiet=True)
    (step_dir(trunk, 2) / TEACHER).write_bytes(b"x")
    branch = training(drawn, tmp_path / "branch", start={"checkpoint": str(step_dir(trunk, 2))})
    with pytest.raises(IntegrityError, match="step-00000002 is damaged"):
        train(branch, quiet=True)
