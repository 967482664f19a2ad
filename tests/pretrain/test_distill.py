"""Distillation: students beside one another are what they are alone, and go on to the same bits."""

import hashlib
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from distilled import COARSE, HALF, HERE, MICRO, backbone_file, distillation
from drawn_dataset import draw_jpeg
from rank_jobs import train_job
from ranks import run_ranks
from safetensors.torch import load_file

from curation.errors import ConfigError, IntegrityError, ModelError
from pretrain.checkpoint_files import MARKER, TEACHER, complete_steps, read_facts, step_dir
from pretrain.distill import build, distill
from pretrain.metrics import read_metrics
from pretrain.teacher import load_teacher
from pretrain.weight_files import find_weights
from pretrain.weights import load_backbone

WEIGHTS = (TEACHER, "student.safetensors", "training.safetensors")
TIMINGS = {"images_per_s", "step_s", "data_wait"}


def bits(run_dir: Path, name: str, step: int = 6) -> dict[str, bytes]:
    return {file: (step_dir(run_dir / "students" / name, step) / file).read_bytes() for file in WEIGHTS}


def terms(run_dir: Path, name: str) -> list[dict[str, Any]]:
    lines = read_metrics(run_dir / "students" / name)
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def six(drawn: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("distilled") / "run"
    found = distill(distillation(drawn, teacher, run_dir), quiet=True)
    assert found == {name: step_dir(run_dir / "students" / name, 6) for name in ("half", "coarse")}
    return run_dir


def test_a_student_is_what_it_is_alone(drawn: Path, teacher: Path, six: Path, tmp_path: Path) -> None:
    for name, student in (("half", HALF), ("coarse", COARSE)):
        distill(distillation(drawn, teacher, tmp_path / name, students={name: student}), quiet=True)
        assert bits(tmp_path / name, name) == bits(six, name)
        assert terms(tmp_path / name, name) == terms(six, name)


def test_each_student_has_its_own_optimiser_and_schedule(
    drawn: Path, teacher: Path, six: Path, tmp_path: Path
) -> None:
    other = {**COARSE, "optimizer": {"clip": 0.5}, "schedule": {"base_lr": 1e-4, "momentum": 0.5}}
    distill(distillation(drawn, teacher, tmp_path, students={"half": HALF, "coarse": other}), quiet=True)
    assert bits(tmp_path, "half") == bits(six, "half")
    assert bits(tmp_path, "coarse") != bits(six, "coarse")
    # The root of 8 / 1024 of the batch's rule, at the end of a warm-up of two steps.
    assert terms(tmp_path, "coarse")[1]["lr"] == pytest.approx(1e-4 * (8 / 1024) ** 0.5)
    assert terms(tmp_path, "half")[1]["lr"] == pytest.approx(4e-3 * (8 / 1024) ** 0.5)


def test_facts_name_the_teacher_by_hash_and_heads_have_its_prototypes(teacher: Path, six: Path) -> None:
    checkpoint = step_dir(teacher, 3)
    digest = hashlib.sha256((checkpoint / MARKER).read_bytes()).hexdigest()
    facts = read_facts(step_dir(six / "students/half", 6))
    assert facts["parent"] == {"path": str(checkpoint), "step": 3, "sha256": digest}
    assert facts["identity"]["teacher"] == {"sha256": digest, "has_heads": True}
    made = load_file(step_dir(six / "students/coarse", 6) / TEACHER)
    assert len(made["dino_head.last_layer.weight_v"]) == 32
    assert len(made["ibot_head.last_layer.weight_v"]) == 24


def test_the_result_is_the_mean_of_the_student_and_the_teacher_stays(
    drawn: Path, teacher: Path, tmp_path: Path
) -> None:
    config = distillation(
        drawn, teacher, tmp_path, schedule={"iterations": 1, "momentum": 0.9, "lr_warmup": 0}
    )
    frozen = load_teacher(config.teacher, HERE, warn=pytest.fail)
    before = load_file(step_dir(teacher, 3) / TEACHER)
    for name, tensor in frozen.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(parameter.requires_grad for parameter in frozen.network.parameters())
    drawn_first = build(config, frozen, HERE).learners[0].student.network.state_dict()
    first = {name: tensor.clone() for name, tensor in drawn_first.items()}
    distill(config, quiet=True)
    folder = step_dir(tmp_path / "students/half", 1)
    mean, student = (load_file(folder / file) for file in (TEACHER, "student.safetensors"))
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, 0.9 * first[name] + 0.1 * student[name], msg=name)
    assert load_file(step_dir(teacher, 3) / TEACHER).keys() == before.keys()


def test_centres_go_on_from_those_of_the_teacher(drawn: Path, teacher: Path, tmp_path: Path) -> None:
    config = distillation(drawn, teacher, tmp_path)
    given = load_file(step_dir(teacher, 3) / "training.safetensors")
    state = build(config, load_teacher(config.teacher, HERE, warn=pytest.fail), HERE)
    assert torch.equal(state.centres.cls, given["centre.cls"])
    assert torch.equal(state.centres.patches, given["centre.patches"])
    assert state.centres.cls.abs().max() > 0


def test_killed_in_mid_step_and_resumed_gives_the_same_bits(
    drawn: Path, teacher: Path, six: Path, tmp_path: Path
) -> None:
    config = distillation(drawn, teacher, tmp_path / "run")
    found = run_ranks(train_job, 1, config, str(tmp_path / "notes"), {0: (5, signal.SIGKILL)}, may_die=True)
    assert found == [None]
    assert [complete_steps(tmp_path / "run/students" / name) for name in ("half", "coarse")] == [[2, 4]] * 2
    run_ranks(train_job, 1, config, str(tmp_path / "notes"))
    for name in ("half", "coarse"):
        assert bits(tmp_path / "run", name) == bits(six, name)
        assert terms(tmp_path / "run", name) == terms(six, name)


@pytest.mark.accept
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize("heads", ["carried", "none"])
def test_two_ranks_go_on_to_the_same_bits(
    heads: str, number: int, drawn: Path, teacher: Path, tmp_path: Path
) -> None:
    chosen = {"path": str(teacher), "heads": heads}
    whole = distillation(drawn, teacher, tmp_path / "whole", teacher=chosen)
    run_ranks(train_job, 2, whole, str(tmp_path / "whole-notes"))
    config = distillation(drawn, teacher, tmp_path / "run", teacher=chosen)
    found = run_ranks(train_job, 2, config, str(tmp_path / "notes"), {0: (5, number)}, may_die=True)
    if number == signal.SIGTERM:  # told in mid-step, all stop after the next one, which is the last
        assert "step-00000006" in found[0] or found[0].startswith("StoppedError: Stopped after step")
    run_ranks(train_job, 2, config, str(tmp_path / "notes"))
    for name in ("half", "coarse"):
        assert bits(tmp_path / "run", name) == bits(tmp_path / "whole", name)
        assert terms(tmp_path / "run", name) == terms(tmp_path / "whole", name)


def test_stopped_by_sigterm_every_student_is_saved(
    drawn: Path, teacher: Path, six: Path, tmp_path: Path
) -> None:
    config = distillation(drawn, teacher, tmp_path / "run")
    [text] = run_ranks(train_job, 1, config, str(tmp_path / "notes"), {0: (2, signal.SIGTERM)})
    assert text.startswith("StoppedError: Stopped after step 3 of 6; saved in ")
    assert "students/half/" in text
    assert "students/coarse/" in text
    distill(config, quiet=True)
    for name in ("half", "coarse"):
        assert bits(tmp_path / "run", name) == bits(six, name)


def test_all_students_go_on_from_the_step_that_is_sound_in_all(
    drawn: Path, teacher: Path, six: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(six, run_dir)
    flip(step_dir(run_dir / "students/coarse", 6) / "student.safetensors")
    distill(distillation(drawn, teacher, run_dir))
    said = capsys.readouterr().err
    assert "coarse/checkpoints/step-00000006 is damaged (student.safetensors is not what was written)" in said
    assert f"going on from {step_dir(run_dir / 'students/half', 4)}" in said
    for name in ("half", "coarse"):
        assert bits(run_dir, name) == bits(six, name)
        assert terms(run_dir, name) == terms(six, name)


def test_a_student_without_checkpoints_is_not_begun_beside_others(
    drawn: Path, teacher: Path, six: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(six, run_dir)
    shutil.rmtree(run_dir / "students/coarse")
    with pytest.raises(IntegrityError, match="no step of which every student") as refused:
        distill(distillation(drawn, teacher, run_dir), quiet=True)
    assert f"{run_dir}/students/coarse: steps []" in str(refused.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"teacher": {"heads": "none"}}, r"teacher\.has_heads: false, was true"),
        ({"students": {"half": HALF}}, r"students\.coarse: null, was "),
        ({"students": {"half": HALF, "coarse": COARSE, "new": HALF}}, r"students\.new: .*, was null"),
        ({"mask_students": True}, "mask_students: true, was false"),
        ({"schedule": {"base_lr": 0.5}}, r"schedule\.base_lr: 0\.5, was 0\.004"),
    ],
)
def test_another_distillation_is_refused(
    change: dict[str, Any], said: str, six: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    drawn, teacher = (request.getfixturevalue(name) for name in ("drawn", "teacher"))
    shutil.copytree(six, tmp_path / "run")
    with pytest.raises(ConfigError, match=rf"another training: .*{said}"):
        distill(distillation(drawn, teacher, tmp_path / "run", **change), quiet=True)


def test_another_teacher_is_refused_by_its_hash_wherever_it_lies(
    drawn: Path, teacher: Path, six: Path, tmp_path: Path
) -> None:
    shutil.copytree(six, tmp_path / "run")
    shutil.copytree(teacher, tmp_path / "moved")
    distill(distillation(drawn, tmp_path / "moved", tmp_path / "run"), quiet=True)
    marker = step_dir(tmp_path / "moved", 3) / MARKER
    marker.write_text(marker.read_text() + "\n")  # as sound as before, and not the one that was
    hashed = r'"\w{64}"'
    with pytest.raises(ConfigError, match=rf"teacher\.sha256: {hashed}, was {hashed}\. Change it back"):
        distill(distillation(drawn, tmp_path / "moved", tmp_path / "run"), quiet=True)


@pytest.mark.parametrize(
    ("arch", "heads"),
    [pytest.param("timm:resnet10t", "carried", marks=pytest.mark.accept), ("timm:convnext_atto", "none")],
)
def test_a_convolutional_student_is_distilled(
    arch: str, heads: str, drawn: Path, teacher: Path, tmp_path: Path
) -> None:
    change = {
        "students": {"net": {"model": {"arch": arch, "patch_px": 16}}},
        "teacher": {"path": str(teacher), "heads": heads},
        "crops": {"local_size_px": 32},
        "schedule": {"iterations": 2},
    }
    distill(distillation(drawn, teacher, tmp_path, **change), quiet=True)
    assert [line["skipped"] for line in terms(tmp_path, "net")] == [False, False]
    assert load_backbone(tmp_path).config.name == arch.removeprefix("timm:")


def test_a_damaged_teacher_is_passed_over_or_refused(drawn: Path, teacher: Path, tmp_path: Path) -> None:
    shutil.copytree(teacher, tmp_path / "teacher")
    flip(step_dir(tmp_path / "teacher", 3) / TEACHER)
    with pytest.raises(IntegrityError, match="damaged"):
        distill(distillation(drawn, tmp_path / "teacher", tmp_path / "run"), quiet=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"students": {}}, "at least 1 item"),
        ({"students": {"a/b": HALF}}, "names no folder"),
        ({"students": {"half": {**HALF, "schedule": {"iterations": 7}}}}, "Extra inputs"),
        ({"students": {"half": {**HALF, "schedule": {"lr_warmup": 7}}}}, "lr_warmup is longer"),
        (
            {"students": {"odd": {"model": {**MICRO, "patch_px": 7}}}},
            "no multiple of students.odd.model",
        ),
        (
            {
                "students": {"net": {"model": {"arch": "timm:resnet10t", "patch_px": 16}}},
                "mask_students": True,
            },
            "has no mask token",
        ),
    ],
)
def test_what_no_distillation_can_be(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        distillation(tmp_path, tmp_path, tmp_path, **change)


def test_no_stochastic_depth_unless_it_is_set(tmp_path: Path) -> None:
    students = {"a": {}, "b": {"model": {}}, "c": {"model": {"drop_path": 0.2}}}
    crops = {"global_size_px": 28, "local_size_px": 14}
    config = distillation(tmp_path, tmp_path, tmp_path, students=students, crops=crops)
    assert [student.model.drop_path for student in config.students.values()] == [0.0, 0.0, 0.2]


def test_a_teacher_that_is_no_larger_is_warned_of(
    drawn: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = {"model": {**MICRO, "depth": 4}}
    config = distillation(drawn, teacher, tmp_path, students={"large": large}, schedule={"iterations": 2})
    distill(config)
    said = capsys.readouterr().err
    assert "the targets, as in DINOv2's distillation" in said
    assert "is no larger than student large" in said


def test_patches_that_do_not_fit_the_crops_are_refused(drawn: Path, tmp_path: Path) -> None:
    file = backbone_file(tmp_path / "t", patch_px=5)
    with pytest.raises(ConfigError, match="cannot cut the global crops"):
        distill(distillation(drawn, file, tmp_path / "run"), quiet=True)


def test_the_probe_measures_the_students_and_once_the_teacher(
    drawn: Path, teacher: Path, tmp_path: Path
) -> None:
    folder = str(tmp_path / "labelled")
    for number in range(4):
        (tmp_path / f"labelled/{number % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"labelled/{number % 2}/{number}.jpg").write_bytes(draw_jpeg(number))
    probe = {"train": folder, "test": folder, "every": 2, "neighbours": [1]}
    config = distillation(drawn, teacher, tmp_path / "run", probe=probe, schedule={"iterations": 4})
    distill(config, quiet=True)
    for name in ("half", "coarse"):
        lines = read_metrics(tmp_path / "run/students" / name)
        assert [line["step"] for line in lines if "teacher_knn_1" in line] == [0]
        assert [line["step"] for line in lines if "knn_1" in line] == [0, 2, 4]


def test_weights_of_several_students_are_asked_for_by_name(six: Path) -> None:
    with pytest.raises(ModelError, match="has several students") as refused:
        find_weights(six)
    assert "coarse, half" in str(refused.value)
    assert find_weights(six / "students/half") == step_dir(six / "students/half", 6) / TEACHER
