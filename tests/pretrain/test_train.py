"""Killed, stopped, damaged: a training goes on to the same bits, or says why it cannot."""

import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_dataset import draw_jpeg, write_dataset_of
from rank_jobs import train_job
from ranks import children_of_server, run_ranks
from tiny import tiny_config
from torch import Tensor

from curation.errors import ConfigError, ExecutorError, IntegrityError, ModelError, StoppedError
from pretrain import checkpoint, loop, train, train_step
from pretrain.checkpoint import CheckpointConfig, newest_sound, prune
from pretrain.checkpoint_files import MARKER, TEACHER, complete_steps, read_facts, step_dir
from pretrain.config import PretrainConfig
from pretrain.loss.group import Alone
from pretrain.metrics import MetricsLog, read_metrics
from pretrain.objective import Losses
from pretrain.parallel import Place
from pretrain.train_step import State, StepOutcome
from pretrain.weights import load_backbone

TIMINGS = {"images_per_s", "step_s", "data_wait"}
FILES = ["teacher.safetensors", "student.safetensors", "training.safetensors", "training.json"]


def training(dataset: Path, run_dir: Path, **change: Any) -> PretrainConfig:
    """20 steps over 37 pictures, so that epochs end in the middle of a batch; everything random is on."""
    base = {
        "run_dir": str(run_dir),
        "data": {"path": str(dataset), "workers": 1, **change.pop("data", {})},
        "checkpoint": {"every": 5, "keep": 2, **change.pop("checkpoint", {})},
        "model": {"drop_path": 0.3, **change.pop("model", {})},
        "objective": {"centring": "softmax"},
    }
    return tiny_config(**base, **change)


def alone(dataset: Path, run_dir: Path, **change: Any) -> PretrainConfig:
    """The same in this process, six steps, a checkpoint after every second one."""
    schedule = {"iterations": 6, **change.pop("schedule", {})}
    every = {"every": 2, **change.pop("checkpoint", {})}
    data = {"workers": 0, **change.pop("data", {})}
    return training(dataset, run_dir, data=data, checkpoint=every, schedule=schedule, **change)


def outcome(run_dir: Path, step: int) -> dict[str, bytes]:
    folder = step_dir(run_dir, step)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def terms(run_dir: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in read_metrics(run_dir)]


def seen(notes: Path, rank: int = 0) -> dict[int, list[Any]]:
    """What a rank saw at each step; a step that was taken again must have seen the same."""
    found: dict[int, list[Any]] = {}
    for line in Path(f"{notes}-{rank}").read_text().splitlines():
        step, *what = json.loads(line)
        assert found.setdefault(step, what) == what, f"step {step} saw something else the second time"
    return found


@pytest.fixture(scope="module")
def undisturbed(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The run directory of a training that nothing happened to, on so many ranks."""
    root = tmp_path_factory.mktemp("undisturbed")

    def run(size: int) -> Path:
        run_dir = root / f"run-{size}"
        if not run_dir.exists():
            run_ranks(train_job, size, training(drawn, run_dir), str(root / f"notes-{size}"))
        return run_dir

    return run


@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.accept)])
def test_killed_in_mid_step_and_resumed_gives_the_same_bits(
    size: int, drawn: Path, undisturbed: Callable[[int], Path], tmp_path: Path
) -> None:
    whole = undisturbed(size)
    run_dir, notes = tmp_path / "run", tmp_path / "notes"
    config = training(drawn, run_dir)
    fatal = {0: (13, signal.SIGKILL)}  # the other rank must end by itself
    found = run_ranks(train_job, size, config, str(notes), fatal, may_die=True)
    assert found[0] is None
    assert not children_of_server(), "loader workers outlive their training"
    assert complete_steps(run_dir) == [5, 10]
    assert max(seen(notes)) == 13
    assert [line["step"] for line in read_metrics(run_dir)] == list(range(1, 13))
    run_ranks(train_job, size, config, str(notes))
    assert not children_of_server()
    assert outcome(run_dir, 20) == outcome(whole, 20)
    assert set(outcome(run_dir, 20)) == {*FILES, MARKER}
    assert terms(run_dir) == terms(whole)
    assert [line["step"] for line in read_metrics(run_dir)] == list(range(1, 21))
    for rank in range(size):
        was = seen(whole.parent / f"notes-{size}", rank)
        assert seen(notes, rank) == was
        assert len(was) == 20
    rows = [row for step in range(1, 21) for rank in range(size) for row in seen(notes, rank)[step][0]]
    assert all(sorted(rows[e * 37 : (e + 1) * 37]) == list(range(37)) for e in range(4))
    assert complete_steps(run_dir) == [15, 20]


@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.accept)])
def test_stopped_by_sigterm_and_resumed_gives_the_same_bits(
    size: int, drawn: Path, undisturbed: Callable[[int], Path], tmp_path: Path
) -> None:
    run_dir, notes = tmp_path / "run", tmp_path / "notes"
    config = training(drawn, run_dir)
    fatal = {size - 1: (7, signal.SIGTERM)}  # one rank is told in mid-step, all stop after the next
    for text in run_ranks(train_job, size, config, str(notes), fatal):
        assert text.startswith("StoppedError: Stopped after step 8 of 20; saved in ")
    assert not children_of_server()
    assert complete_steps(run_dir) == [5, 8]
    run_ranks(train_job, size, config, str(notes))
    assert outcome(run_dir, 20) == outcome(undisturbed(size), 20)
    assert terms(run_dir) == terms(undisturbed(size))


@pytest.mark.accept
def test_another_number_of_ranks_goes_on_with_the_same_images(
    drawn: Path, undisturbed: Callable[[int], Path], tmp_path: Path
) -> None:
    run_dir, notes = tmp_path / "run", tmp_path / "notes"
    config = training(drawn, run_dir)
    run_ranks(train_job, 2, config, str(notes), {0: (7, signal.SIGTERM)})
    run_ranks(train_job, 1, config, f"{notes}-alone")
    after, was = seen(Path(f"{notes}-alone")), seen(undisturbed(1).parent / "notes-1")
    assert list(after) == list(range(9, 21))
    assert all(after[step][0] == was[step][0] for step in after)
    before = [seen(notes, rank) for rank in range(2)]
    assert all(before[0][step][0] + before[1][step][0] == was[step][0] for step in range(1, 9))
    assert [line["step"] for line in read_metrics(run_dir)] == list(range(1, 21))


def test_stopped_error_ends_with_143(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = loop.train_step

    def stopping(state: State, *rest: Any, **options: Any) -> StepOutcome:
        if state.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(state, *rest, **options)

    monkeypatch.setattr(loop, "train_step", stopping)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError) as stopped:
        train.train(alone(drawn, tmp_path / "run"), quiet=True)
    assert stopped.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert complete_steps(tmp_path / "run") == [2, 3]


def everything(state: State) -> dict[str, Tensor]:
    found = {"centre": torch.cat(list(state.centres))}
    for role in (state.learners[0].student, state.teacher):
        for name, parameter in role.network.named_parameters():
            found[f"{id(role)}.{name}"] = parameter.detach().clone()
            for kind, value in state.learners[0].optimizer.state.get(parameter, {}).items():
                found[f"{kind}.{name}"] = value.clone()
    return found


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_not_taken(
    what: str, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad_steps = {3, 4}
    step, losses = loop.train_step, train_step.student_losses
    now = 0
    streak: list[int] = []

    def spoiling(*arguments: Any, **options: Any) -> Losses:
        found = losses(*arguments, **options)
        if now not in bad_steps:
            return found
        if what == "loss":
            return found._replace(koleo=found.koleo * float("nan"))
        found.ibot.register_hook(lambda gradient: gradient * float("inf"))
        return found

    def watching(state: State, crops: Any, *rest: Any, **options: Any) -> StepOutcome:
        nonlocal now
        now = crops.step + 1
        before = everything(state)
        taken = step(state, crops, *rest, **options)
        after = everything(state)
        same = before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
        assert same == (now in bad_steps) == taken.records[0]["skipped"]
        assert all(p.grad is None for p in state.learners[0].student.network.parameters())
        streak.append(state.learners[0].num_skipped)
        return taken

    monkeypatch.setattr(train_step, "student_losses", spoiling)
    monkeypatch.setattr(loop, "train_step", watching)
    train.train(alone(drawn, tmp_path / "run", max_skipped=3), quiet=True)
    lines = read_metrics(tmp_path / "run")
    assert [line["skipped"] for line in lines] == [False, False, True, True, False, False]
    assert streak == [0, 0, 1, 2, 0, 0]
    if what == "loss":
        assert [line["koleo"] is None for line in lines] == [False, False, True, True, False, False]
    bad_steps = {1, 2, 3, 4, 5}
    with pytest.raises(ExecutorError, match="3 steps in a row"):
        train.train(alone(drawn, tmp_path / "other", max_skipped=3), quiet=True)
    # A checkpoint of a training that has not taken a step so far can be resumed as well.
    assert complete_steps(tmp_path / "other") == [2]
    bad_steps = set()
    train.train(alone(drawn, tmp_path / "other", max_skipped=3), quiet=True)
    assert [line["skipped"] for line in read_metrics(tmp_path / "other")] == [True] * 2 + [False] * 4


@pytest.fixture(scope="module")
def six_steps(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("six") / "run"
    train.train(alone(drawn, run_dir, checkpoint={"keep": 3}), quiet=True)
    assert complete_steps(run_dir) == [2, 4, 6]
    return run_dir


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def garble(path: Path) -> None:
    path.write_bytes(b"\xff{]")


FAULTS = [(name, how) for name in FILES for how in (truncate, flip, Path.unlink)] + [
    (MARKER, how) for how in (truncate, garble, Path.unlink)
]


@pytest.mark.parametrize(("name", "how"), FAULTS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_a_damaged_checkpoint_is_passed_over(
    name: str, how: Callable[[Path], None], six_steps: Path, tmp_path: Path
) -> None:
    copy_of(six_steps, tmp_path)
    how(step_dir(tmp_path, 6) / name)
    said: list[str] = []
    assert newest_sound(tmp_path, warn=said.append) == step_dir(tmp_path, 4)
    assert len(said) == 1
    assert name in said[0]
    assert "step-00000006 is damaged" in said[0]


@pytest.mark.parametrize("marker", ["{}", "[" * 100_000, None])
def test_a_marker_that_lists_too_little_or_is_nested_is_damage(
    marker: str | None, six_steps: Path, tmp_path: Path
) -> None:
    copy_of(six_steps, tmp_path)
    file = step_dir(tmp_path, 6) / MARKER
    proof = json.loads(file.read_text())
    file.write_text(json.dumps({"training.json": proof["training.json"]}) if marker is None else marker)
    said: list[str] = []
    assert newest_sound(tmp_path, warn=said.append) == step_dir(tmp_path, 4)
    assert "step-00000006 is damaged (COMPLETE.json" in said[0]


@pytest.mark.parametrize("name", ["step-best", "step-00000002.bak", "step-7", "step-٠٠٠٠٠٠٠٩"])
def test_a_copy_of_a_checkpoint_under_another_name_is_none(
    name: str, six_steps: Path, tmp_path: Path
) -> None:
    copy_of(six_steps, tmp_path)
    copy_of(step_dir(tmp_path, 2), tmp_path / "checkpoints" / name)
    assert newest_sound(tmp_path, warn=pytest.fail) == step_dir(tmp_path, 6)
    assert complete_steps(tmp_path) == [2, 4, 6]
    prune(tmp_path, CheckpointConfig(keep=1), newest=6)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {name, "step-00000006"}


def test_links_and_files_among_checkpoints_are_removed_as_such(
    drawn: Path, six_steps: Path, tmp_path: Path
) -> None:
    run_dir, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    copy_of(six_steps, run_dir)
    whole = outcome(six_steps, 6)
    for step in (2, 6):
        step_dir(run_dir, step).rename(elsewhere.with_name(f"elsewhere{step}"))
        step_dir(run_dir, step).symlink_to(elsewhere.with_name(f"elsewhere{step}"))
    flip(tmp_path / "elsewhere6" / TEACHER)
    (run_dir / "checkpoints/.step-00000008.abc.tmp").write_bytes(b"x")
    (run_dir / "checkpoints/.step-00000009.abc.tmp").symlink_to(tmp_path / "elsewhere2")
    train.train(alone(drawn, run_dir, checkpoint={"keep": 1}), quiet=True)
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["step-00000006"]
    assert outcome(run_dir, 6) == whole
    assert (tmp_path / "elsewhere2" / MARKER).is_file()
    shutil.rmtree(step_dir(run_dir, 6))
    step_dir(run_dir, 6).write_bytes(b"x")
    copy_of(step_dir(six_steps, 4), step_dir(run_dir, 4))
    train.train(alone(drawn, run_dir), quiet=True)
    assert outcome(run_dir, 6) == whole


def copy_of(run_dir: Path, target: Path) -> None:
    """A run directory that a test may spoil; hard links would share the damage."""
    shutil.copytree(run_dir, target, dirs_exist_ok=True)


def test_the_losses_after_a_damage_are_those_of_a_clean_resume(
    drawn: Path, six_steps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_of(six_steps, tmp_path)
    flip(step_dir(tmp_path, 6) / "student.safetensors")
    train.train(alone(drawn, tmp_path, checkpoint={"keep": 3}))
    assert "step-00000006 is damaged (student.safetensors is not what was written)" in capsys.readouterr().err
    assert outcome(tmp_path, 6) == outcome(six_steps, 6)
    assert terms(tmp_path) == terms(six_steps)


def test_all_checkpoints_damaged(drawn: Path, six_steps: Path, tmp_path: Path) -> None:
    copy_of(six_steps, tmp_path)
    for step in (2, 4, 6):
        flip(step_dir(tmp_path, step) / "training.json")
    with pytest.raises(IntegrityError, match="Every checkpoint"):
        train.train(alone(drawn, tmp_path), quiet=True)


@pytest.mark.parametrize("given", ["run", "checkpoint", "file"])
def test_weights_of_a_damaged_checkpoint_are_refused(given: str, six_steps: Path, tmp_path: Path) -> None:
    """Its proof lies beside it: who exports, evaluates or embeds with it asks that, as a resume does."""
    copy_of(six_steps, tmp_path)
    folder = step_dir(tmp_path, 6)
    path = {"run": tmp_path, "checkpoint": folder, "file": folder / TEACHER}[given]
    load_backbone(path)
    flip(folder / TEACHER)
    with pytest.raises(ModelError, match="step-00000006 is damaged"):
        load_backbone(path)
    load_backbone(step_dir(tmp_path, 4))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_shard_ends_the_training_with_its_name(workers: int, drawn: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(drawn, run_dir)
    for shard in run_dir.glob("dataset-*/*.tar"):
        flip(shard)
    with pytest.raises(IntegrityError, match=r"x-00000\d\.tar is not the shard that was written") as refused:
        train.train(alone(run_dir, tmp_path / "t", data={"workers": workers}), quiet=True)
    assert "Traceback" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"seed": 1}, "seed"),
        ({"batch_images": 4}, "batch_images"),
        ({"schedule": {"base_lr": 0.5}}, "schedule.base_lr"),
        ({"heads": {"prototypes": 64}}, "heads.prototypes"),
        ({"model": {"depth": 3}}, "model.depth"),
        ({"data": {"window_images": 7}}, "data.window_images"),
    ],
)
def test_another_config_is_refused(
    change: dict[str, Any], name: str, drawn: Path, six_steps: Path, tmp_path: Path
) -> None:
    copy_of(six_steps, tmp_path)
    with pytest.raises(ConfigError, match=rf"another training: {re.escape(name)}: [^;]+, was \S+\. Change"):
        train.train(alone(drawn, tmp_path, **change), quiet=True)


def test_another_dataset_is_refused(six_steps: Path, tmp_path: Path) -> None:
    copy_of(six_steps, tmp_path / "run")
    other = write_dataset_of(tmp_path / "other", [[draw_jpeg(n) for n in range(40)]])
    with pytest.raises(ConfigError, match=r"data\.sha256"):
        train.train(alone(other, tmp_path / "run"), quiet=True)


@pytest.mark.parametrize("call", ["save_file", "fsync", "_publish_marker", "rename", "rmtree"])
@pytest.mark.parametrize("is_there", [False, True], ids=["new", "over an unfinished one"])
def test_an_interrupted_checkpoint_leaves_the_old_or_the_new_state(
    call: str, is_there: bool, six_steps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write of step 6 breaks off at the n-th call of something, for every n that there is."""
    state = train.build(alone(tmp_path, tmp_path), Place(torch.device("cpu"), torch.float32, Alone(), None))
    networks = {"student": state.learners[0].student.network, "teacher": state.teacher.network}
    centres = checkpoint.load(step_dir(six_steps, 6), **networks, optimizer=state.learners[0].optimizer)
    facts = read_facts(step_dir(six_steps, 6))
    whole = {step: outcome(six_steps, step) for step in (4, 6)}

    def save(run_dir: Path) -> None:
        rest = {
            "optimizer": state.learners[0].optimizer,
            "centres": centres,
            "facts": facts,
            "is_writer": True,
        }
        checkpoint.save(run_dir, 6, **networks, **rest)

    owner = {"rename": Path, "rmtree": shutil}.get(call, checkpoint)
    real, calls, last = getattr(owner, call), 0, 0

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == last:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    for last in range(1, 20):
        run_dir, calls = tmp_path / f"{last}", 0
        for step in (4, 6) if is_there else (4,):
            copy_of(step_dir(six_steps, step), step_dir(run_dir, step))
        if is_there:
            (step_dir(run_dir, 6) / MARKER).unlink()
        with monkeypatch.context() as patch:
            patch.setattr(owner, call, failing)
            try:
                save(run_dir)
            except KeyboardInterrupt:
                is_done = False
            else:
                is_done = True
        sound = newest_sound(run_dir, warn=lambda _: None)
        assert sound in (step_dir(run_dir, 4), step_dir(run_dir, 6))
        step = int(sound.name[-8:])
        assert outcome(run_dir, step) == whole[step]
        if is_done:
            break
        save(run_dir)
        prune(run_dir, CheckpointConfig(), newest=6)
        assert newest_sound(run_dir, warn=pytest.fail) == step_dir(run_dir, 6)
        assert outcome(run_dir, 6) == whole[6]
        assert not list((run_dir / "checkpoints").glob(".*"))
    assert is_done
    assert last > 1


def complete(run_dir: Path, *steps: int) -> None:
    for step in steps:
        step_dir(run_dir, step).mkdir(parents=True)
        (step_dir(run_dir, step) / MARKER).write_text("{}")


@pytest.mark.parametrize(
    ("keep", "keep_every", "left"),
    [
        (1, None, [12]),
        (2, None, [10, 12]),
        (9, None, [2, 4, 6, 8, 10, 12]),
        (1, 4, [4, 8, 12]),
        (2, 5, [10, 12]),
        (1, 6, [6, 12]),
    ],
)
def test_prune_keeps(keep: int, keep_every: int | None, left: list[int], tmp_path: Path) -> None:
    complete(tmp_path, 2, 4, 6, 8, 10, 12)
    (tmp_path / "checkpoints" / ".step-00000012.abc.tmp").mkdir()
    prune(tmp_path, CheckpointConfig(keep=keep, keep_every=keep_every), newest=12)
    assert complete_steps(tmp_path) == left
    assert len(list((tmp_path / "checkpoints").iterdir())) == len(left)


def test_damaged_checkpoints_do_not_take_the_place_of_sound_ones(tmp_path: Path) -> None:
    # 10 and 15 were damaged, so the training went on from 5 and was stopped after 7.
    complete(tmp_path, 5, 7, 10, 15)
    prune(tmp_path, CheckpointConfig(keep=2), newest=7)
    assert complete_steps(tmp_path) == [5, 7]


def test_an_unreadable_image_is_counted(tmp_path: Path) -> None:
    pictures = [draw_jpeg(n) for n in range(12)]
    pictures[5] = b"no picture"
    dataset = write_dataset_of(tmp_path / "data", [pictures])
    train.train(alone(dataset, tmp_path / "run", data={"workers": 1}), quiet=True)
    lines = read_metrics(tmp_path / "run")
    # Six batches of 8 are four epochs of 12.
    assert sum(line["unreadable"] for line in lines) == 4
    assert all(line["loss"] is not None for line in lines)


def test_ranks_that_cannot_share_a_batch(drawn: Path, tmp_path: Path) -> None:
    config = training(drawn, tmp_path / "run", batch_images=9)
    for text in run_ranks(train_job, 2, config, str(tmp_path / "notes")):
        assert text.startswith("ConfigError: The ranks cannot share a batch evenly")


def test_no_local_crops_and_no_step_may_be_skipped(drawn: Path, tmp_path: Path) -> None:
    train.train(alone(drawn, tmp_path / "run", crops={"num_local": 0}, max_skipped=0), quiet=True)
    lines = read_metrics(tmp_path / "run")
    assert [line["dino_local"] for line in lines] == [0.0] * 6
    assert all(line["dino_global"] > 0 for line in lines)


def test_metrics_have_each_step_once(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, first_step=0, warn=print)
    log.write({"step": 0, "knn_10": 0.5})
    for step in (1, 2, 3):
        log.write({"step": step, "loss": float("nan") if step == 2 else 1.5})
    with (tmp_path / "metrics.jsonl").open("a") as out:
        out.write('{"step": 4, "lo')  # killed while writing
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1, 2, 3]
    assert read_metrics(tmp_path)[2]["loss"] is None
    MetricsLog(tmp_path, first_step=2, warn=print).write({"step": 3, "loss": 2.5})
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1, 2, 3]
    assert read_metrics(tmp_path)[3]["loss"] == 2.5
    MetricsLog(
        tmp_path, first_step=0, warn=print
    )  # anew: what was measured before the first step is measured again
    assert read_metrics(tmp_path) == []


def test_one_number_that_changed_is_named_alone(drawn: Path, six_steps: Path, tmp_path: Path) -> None:
    copy_of(six_steps, tmp_path)
    with pytest.raises(ConfigError, match=r"schedule\.iterations: 9, was 6\. Change") as refused:
        train.train(alone(drawn, tmp_path, schedule={"iterations": 9}), quiet=True)
    assert str(refused.value).count("schedule.") == 1
    assert "base_lr" not in str(refused.value)
