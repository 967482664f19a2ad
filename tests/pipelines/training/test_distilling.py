"""`lvd distill`: its configs, its run directory, and a distillation of a few steps from the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_pretraining import TRAINING, write

from curation.errors import ConfigError
from pipelines.cli.main import main
from pipelines.config.read import ALL_FOLDERS
from pipelines.training.distilling import load_distillation
from pretrain.schedules import scaled_lr
from pretrain.weights import load_backbone

SHIPPED = sorted(path.name for path in ALL_FOLDERS[1].glob("distill_*.yaml"))
MODEL = {"arch": "vit_micro", "patch_px": 8, "layer_scale": 1.0}
DISTILLATION = {
    **{name: TRAINING[name] for name in ("batch_images", "data", "crops", "schedule", "parallel")},
    "teacher": {"path": "none"},
    "students": {"one": {"model": {**MODEL, "depth": 1}}, "two": {"model": {**MODEL, "depth": 2}}},
}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_distillation_is_valid(name: str) -> None:
    config = load_distillation(name, ["data.path=/runs/x"])
    assert config.run_dir == f"runs/{name.removesuffix('.yaml')}"
    for student in config.students.values():
        assert student.model.drop_path == 0.0
    assert not config.mask_students


@pytest.mark.parametrize("name", ["distill_vits14.yaml", "distill_vitl14.yaml"])
def test_the_recipe_has_the_published_constants(name: str) -> None:
    """Source: arXiv:2304.07193, §5 and appendix B."""
    config = load_distillation(name, ["data.path=/runs/x"])
    assert config.batch_images == 2048
    for student in config.students:
        lr = scaled_lr(config.schedule_of(student).base_lr, batch_images=config.batch_images)
        assert lr == pytest.approx(1e-3, rel=1e-4)
    objective = config.objective
    assert (objective.dino_weight, objective.ibot_weight, objective.koleo_weight) == (1.0, 1.0, 0.1)
    assert (config.crops.global_size_px, config.crops.local_size_px, config.crops.num_local) == (224, 98, 8)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("students.one.schedule.iterations=5", ["students.one.schedule.iterations", "no such field"]),
        ("students.one.model.patch_px=5", ["no multiple of students.one.model.patch_px (5)"]),
        ("students.one.model={arch: timm:resnet18, patch_px: 8}", ["takes crops of 32 px and more, not 16"]),
        ("crops.gram_size_px=96", ["crops.gram_size_px"]),
        ("data.workers=0", ["data.path is missing", "--set data.path="]),
        ("run_dir=s3://bucket/x", ["run_dir must be a folder"]),
    ],
)
def test_a_wrong_distillation_names_its_fields(tmp_path: Path, change: str, said: list[str]) -> None:
    file = write(tmp_path / "d.yaml", DISTILLATION)
    with pytest.raises(ConfigError) as error:
        load_distillation(file, [change])
    assert file in str(error.value)
    for part in said:
        assert part in str(error.value)


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_distil_go_on_report_and_export(
    tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir, data = tmp_path / "small", f"data.path={finished}"
    teacher = write(tmp_path / "t.yaml", TRAINING)
    ask(capsys, "pretrain", teacher, "--set", data, "--set", f"run_dir={tmp_path / 'large'}")
    file = write(tmp_path / "d.yaml", DISTILLATION)
    sets = [data, f"run_dir={run_dir}", f"teacher.path={tmp_path / 'large'}"]
    arguments = ["distill", file, *(part for one in sets for part in ("--set", one))]
    expected = {name: str(run_dir / f"students/{name}/checkpoints/step-00000002") for name in ("one", "two")}
    assert ask(capsys, *arguments) == {"checkpoints": expected}
    assert list(yaml.safe_load((run_dir / "distill.yaml").read_text())["students"]) == ["one", "two"]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert said.out == "".join(f"checkpoint of {name}: {path}\n" for name, path in expected.items())
    assert "are the targets, as in DINOv2's distillation" in said.err
    assert "going on from" in said.err

    drawn = [str(run_dir / f"students/{name}/curves.png") for name in ("one", "two")]
    assert ask(capsys, "report", str(run_dir)) == {"reports": drawn}
    assert ask(capsys, "report", str(run_dir / "students/two")) == {"report": drawn[1]}
    out = str(tmp_path / "two.safetensors")
    assert main(["export", str(run_dir), "--format", "safetensors", "--out", out]) != 0
    assert "has several students" in capsys.readouterr().err
    assert main(["export", str(run_dir / "students/two"), "--format", "safetensors", "--out", out]) == 0
    assert load_backbone(out).config.depth == 2


@pytest.mark.accept
def test_two_processes_distil(tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = f"data.path={finished}"
    teacher = write(tmp_path / "t.yaml", TRAINING)
    ask(capsys, "pretrain", teacher, "--set", data, "--set", f"run_dir={tmp_path / 'large'}")
    file = write(tmp_path / "d.yaml", DISTILLATION)
    sets = [data, f"run_dir={tmp_path / 'small'}", f"teacher.path={tmp_path / 'large'}"]
    sets.append("parallel.processes=2")
    found = ask(capsys, "distill", file, *(part for one in sets for part in ("--set", one)))
    for path in found["checkpoints"].values():
        assert json.loads((Path(path) / "training.json").read_text())["num_ranks"] == 2
