"""What a training says as it starts, waits, diverges, or finds damaged checkpoints, as it reads."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import alone

from curation.errors import ConfigError, ExecutorError, IntegrityError
from pretrain import loop, train
from pretrain.checkpoint_files import step_dir
from pretrain.divergence import diverged
from pretrain.identity import require_same
from pretrain.loss.group import Alone
from pretrain.metrics import ProgressLine, TimeLeft
from pretrain.parallel import Place, place
from pretrain.start_line import Size, start_line
from pretrain.train import build

CPU = Place(torch.device("cpu"), torch.float32, Alone(), None)


def small(dataset: Path, run_dir: Path, **change: Any) -> Any:
    """Three steps of eight images, with a checkpoint after each."""
    schedule = {"iterations": 3, **change.pop("schedule", {})}
    return alone(dataset, run_dir, schedule=schedule, checkpoint={"every": 1, "keep": 3}, **change)


@pytest.fixture(scope="module")
def three_steps(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("what-is-said") / "run"
    train.train(small(drawn, run_dir), quiet=True)
    return run_dir


def test_the_start_line(drawn: Path, tmp_path: Path) -> None:
    config = small(drawn, tmp_path)
    with place(config.parallel) as where:
        [learner] = build(config, where).learners
    network = learner.student.network
    counts = [sum(x.numel() for x in part.parameters()) for part in (network.backbone, network)]
    parameters = f"{counts[0] / 1e6:.1f} M parameters, {counts[1] / 1e6:.1f} M with heads"
    # 8 images a step: 0.004 · √(8 / 1024) = 3.54e-4.
    rate = "learning rate 0.000354 at its peak (base_lr 0.004)"
    size = Size(num_images=12, batch_images=8, accumulate=1, first_step=0, total=30)
    assert start_line([learner], size, CPU) == (
        f"12 images, steps 1 to 30 of 8 images: 20 epochs; {parameters}; {rate}; cpu, fp32, 1 rank"
    )
    size = Size(num_images=None, batch_images=8, accumulate=4, first_step=29, total=30)
    assert start_line([learner, learner], size, CPU).startswith(
        "steps 30 to 30 of 8 images in 4 micro-batches, of a dataset whose images nobody has counted; "
        f"{learner.folder.name}: {parameters}; {rate}; "
    )


def test_the_time_left_is_no_matter_of_one_step() -> None:
    left = TimeLeft()
    left.add(60.0)  # workers start, kernels are chosen
    assert left.of(10) == pytest.approx(600)
    for _ in range(100):
        left.add(2.0)
    assert left.of(10) == pytest.approx(20)
    left.add(30.0)  # a shard was fetched: 2 + 28 · 0.02 / (1 − 0.98^101)
    assert left.of(1) == pytest.approx(2 + 28 * 0.02 / (1 - 0.98**101))
    for _ in range(300):
        left.add(1.0)  # it has become faster, and stays so
    assert left.of(1) == pytest.approx(1, rel=0.01)


def test_the_time_left_as_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine(100)
    for step, step_s in ((1, 60.0), (2, 2.0), (3, 2.0)):
        line._last = -1e9  # another ten seconds have gone by
        line.show([{"step": step, "loss": 1.0, "images_per_s": 4.0, "data_wait": 0.25, "step_s": step_s}])
    ends = [text.partition("waiting for data ")[2] for text in capsys.readouterr().err.splitlines()]
    assert ends == [
        "25%  about 1 h 39 min left", "25%  about 3 min 16 s left", "25%  about 3 min 14 s left",
    ]  # fmt: skip


def test_a_changed_config_names_its_changed_leaves_alone(
    drawn: Path, three_steps: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(three_steps, run_dir)
    change: dict[str, Any] = {"optimizer": {"betas": (0.9, 0.95)}, "heads": {"separate": True}}
    config = small(drawn, run_dir, schedule={"base_lr": 0.008}, **change)
    with pytest.raises(ConfigError) as raised:
        train.train(config, quiet=True)
    folder = step_dir(run_dir, 3)
    assert str(raised.value) == (
        f"{folder} was written by another training: heads.separate: true, was false; "
        "optimizer.betas.1: 0.95, was 0.999; schedule.base_lr: 0.008, was 0.004. Change it back; or branch "
        f"from this checkpoint, or begin anew, in a run_dir of its own: lvd pretrain {folder} "
        "--set run_dir=…."
    )


@pytest.mark.parametrize(
    ("saved", "now", "said"),
    [
        ({"a": {"b": None}}, {"a": {"b": 2}}, "a.b: 2, was null"),
        ({"a": {"b": 2}}, {"a": {"b": None}}, "a.b: null, was 2"),
        ({"a": None}, {"a": {"b": 1}}, 'a: {"b": 1}, was null'),
        ({"a": [1, [2, 3]]}, {"a": [1, [2, 4]]}, "a.1.1: 4, was 3"),
        ({"a": [1]}, {"a": [1, 2]}, "a: [1, 2], was [1]"),
        ({"a": 1, "gone": "x"}, {"a": 1}, 'gone: null, was "x"'),
    ],
)
def test_lists_and_nulls_among_what_has_changed(saved: Any, now: Any, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        require_same(saved, now, Path("f"), step=1)
    assert f"another training: {said}. Change it back" in str(raised.value)


def test_a_divergence_shows_the_gradient_norms(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weight that is no number: no loss is finite, and no gradient of the backbone."""

    def spoiled(*arguments: Any, **options: Any) -> Any:
        state = build(*arguments, **options)
        with torch.no_grad():
            state.learners[0].student.network.backbone.cls_token.fill_(float("nan"))
        return state

    monkeypatch.setattr(train, "build", spoiled)
    with pytest.raises(ExecutorError) as raised:
        train.train(small(drawn, tmp_path, max_skipped=2), quiet=True)
    text = str(raised.value)
    assert text.startswith(
        "2 steps in a row had no finite loss or gradient; none of them was taken. Got: step 2: "
    )
    assert "Got: step 2: loss nan, dino_local nan, " in text
    assert "grad_norm_backbone nan, grad_norm_dino_head nan" in text


@pytest.mark.parametrize(
    ("dtype", "change", "remedy"),
    [
        (
            torch.bfloat16, {},
            "Set parallel.dtype to fp32 and go on here. Or begin anew in another run_dir with a lower "
            "schedule.base_lr than 0.004 or a longer schedule.lr_warmup than 2 of 100 iterations. ",
        ),
        (
            torch.float32, {"schedule": {"lr_warmup": 10}},
            "Begin anew in another run_dir with a lower schedule.base_lr than 0.004. ",
        ),
        (
            torch.float32, {"schedule": {"lr_warmup": 10}, "optimizer": {"clip": 0}},
            "Begin anew in another run_dir with a lower schedule.base_lr than 0.004 or optimizer.clip at 3 "
            "(off now). ",
        ),
    ],
)  # fmt: skip
def test_a_divergence_gives_no_advice_that_is_followed_already(
    dtype: torch.dtype, change: dict[str, Any], remedy: str, drawn: Path, tmp_path: Path
) -> None:
    schedule = {"iterations": 100, **change.pop("schedule", {})}
    [learner] = build(alone(drawn, tmp_path, schedule=schedule, **change), CPU).learners
    learner.num_skipped = 10
    record = {"step": 7, "loss": float("inf"), "koleo": 0.5, "grad_norm_backbone": float("nan"), "lr": 1.0}
    error = diverged(learner, record, Place(torch.device("cpu"), dtype, Alone(), None))
    assert str(error) == (
        "10 steps in a row had no finite loss or gradient; none of them was taken. Got: step 7: loss inf, "
        f"koleo 0.5, grad_norm_backbone nan. Expected: finite numbers. {remedy}The checkpoints before "
        "are sound: lvd pretrain RUN_DIR/checkpoints/step-… branches from one."
    )


def test_damaged_checkpoints_are_told_in_the_order_in_which_they_are_looked_at(
    drawn: Path, three_steps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(three_steps, run_dir)
    (step_dir(run_dir, 3) / "teacher.safetensors").write_bytes(b"torn")
    (step_dir(run_dir, 2) / "COMPLETE.json").unlink()
    train.train(small(drawn, run_dir))
    said = capsys.readouterr().err.splitlines()
    assert said[:3] == [
        f"{step_dir(run_dir, 3)} is damaged (teacher.safetensors is not what was written)",
        f"{step_dir(run_dir, 2)} is damaged (COMPLETE.json is missing)",
        f"going on from {step_dir(run_dir, 1)}",
    ]
    assert said[3].startswith("37 images, steps 2 to 3 of 8 images: 0.432 epochs; ")


def test_where_all_checkpoints_are_damaged_each_is_told(three_steps: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(three_steps, run_dir)
    for step in (1, 2, 3):
        (step_dir(run_dir, step) / "student.safetensors").unlink()
    said: list[str] = []
    with pytest.raises(IntegrityError) as raised:
        loop.newest_checkpoint([run_dir], CPU, warn=said.append)
    wrong = [f"step-0000000{step}: student.safetensors is missing" for step in (3, 2, 1)]
    assert f"Every checkpoint in {run_dir}/checkpoints is damaged. Got: {'; '.join(wrong)}." in str(
        raised.value
    )
    assert len(said) == 3
