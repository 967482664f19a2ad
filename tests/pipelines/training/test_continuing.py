"""`lvd pretrain RUN_DIR`, `lvd pretrain CHECKPOINT`, `lvd adapt`: which training they mean."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from curation.errors import ConfigError
from pipelines.cli.main import main
from pipelines.training.continuing import load_adaptation, load_continuation
from pretrain.checkpoint_files import complete_steps, read_facts, step_dir

TRAINING = {
    "seed": 3,
    "batch_images": 4,
    "data": {"workers": 0},
    "model": {"arch": "vit_micro", "depth": 1, "patch_px": 8, "layer_scale": 1.0, "drop_path": 0.0},
    "heads": {"prototypes": 32, "hidden_dim": 32, "bottleneck_dim": 16},
    "crops": {"global_size_px": 32, "local_size_px": 16, "num_local": 1},
    "schedule": {"iterations": 2},
    "checkpoint": {"every": 1},
    "parallel": {"device": "cpu", "dtype": "fp32", "threads": 1},
}


@pytest.fixture(scope="module")
def begun(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps on a finished dataset."""
    folder = tmp_path_factory.mktemp("continuing")
    file = folder / "t.yaml"
    file.write_text(yaml.safe_dump(TRAINING))
    run_dir = folder / "trunk"
    where = ["--set", f"data.path={finished}", "--set", f"run_dir={run_dir}"]
    assert main(["pretrain", str(file), *where]) == 0
    return run_dir


def test_a_run_directory_is_its_training(begun: Path) -> None:
    config = load_continuation(str(begun), [])
    assert (config.run_dir, config.seed, config.start) == (str(begun), 3, None)
    longer = load_continuation(str(begun), ["schedule.tail={at: 2, iterations: 3}"])
    assert (longer.run_dir, longer.schedule.total) == (str(begun), 5)


@pytest.mark.parametrize("given", ["run", "checkpoint"])
def test_with_another_run_dir_it_is_a_branch(given: str, begun: Path, tmp_path: Path) -> None:
    path = begun if given == "run" else step_dir(begun, 1)
    config = load_continuation(str(path), [f"run_dir={tmp_path / 'b'}", "schedule.base_lr=0.5"])
    assert config.start is not None
    assert (config.start.checkpoint, config.start.schedule) == (str(path), "go_on")
    assert (config.name, config.run_dir, config.schedule.base_lr) == ("b", str(tmp_path / "b"), 0.5)
    assert config.data.path == load_continuation(str(begun), []).data.path


def test_a_checkpoint_is_not_gone_on_with_in_its_own_run(begun: Path) -> None:
    with pytest.raises(ConfigError, match=r"goes on from its newest.*--set run_dir=…; or .*lvd pretrain"):
        load_continuation(str(step_dir(begun, 1)), [])


def test_nothing_has_begun(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match="No training has begun"):
            load_continuation(str(path), [])


def test_a_student_of_a_distillation_is_not_adapted(begun: Path, tmp_path: Path) -> None:
    student = tmp_path / "students" / "small"
    shutil.copytree(begun, student)
    facts = step_dir(student, 2) / "training.json"
    facts.write_text(json.dumps({"identity": {"students": {"small": {}}}}))
    with pytest.raises(ConfigError, match=r"student of a distillation.*lvd distill CONFIG.*model\.weights="):
        load_continuation(str(student), [])


def test_an_adaptation_is_what_it_says_and_else_what_was(begun: Path, tmp_path: Path) -> None:
    own = [f"start.checkpoint={begun}", f"run_dir={tmp_path / 'a'}"]
    config = load_adaptation("adapt_518.yaml", [*own, "crops.global_size_px=48", "crops.local_size_px=16"])
    assert config.start is not None
    assert (config.start.schedule, config.schedule.iterations) == ("anew", 10_000)
    assert (config.crops.global_size_px, config.crops.num_local) == (48, 1)
    assert (config.seed, config.batch_images, config.accumulate) == (3, 4, 4)
    assert config.heads.prototypes == 32
    with pytest.raises(ConfigError, match=r"start\.checkpoint is missing.*--set start\.checkpoint="):
        load_adaptation("adapt_518.yaml", [])


def test_the_commands(begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    branch = tmp_path / "branch"
    assert main(["pretrain", str(step_dir(begun, 1)), "--set", f"run_dir={branch}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["checkpoint"] == str(step_dir(branch, 2))
    stage = {
        "start": {"checkpoint": str(branch)},
        "run_dir": str(tmp_path / "stage"),
        "crops": {"global_size_px": 48},
        "schedule": {"iterations": 1},
    }
    file = tmp_path / "stage.yaml"
    file.write_text(yaml.safe_dump(stage))
    assert main(["adapt", str(file)]) == 0
    facts: dict[str, Any] = read_facts(step_dir(tmp_path / "stage", 1))
    assert facts["parent"]["path"] == str(step_dir(branch, 2))
    assert read_facts(step_dir(branch, 2))["parent"]["path"] == str(step_dir(begun, 1))
    assert "begins with" in capsys.readouterr().err
    # The trunk is made longer by a tail, and by nothing else.
    assert main(["pretrain", str(begun), "--set", "schedule.iterations=3"]) == 2
    assert "schedule.iterations: 3, was 2" in capsys.readouterr().err
    assert main(["pretrain", str(begun), "--set", "schedule.tail={at: 2, iterations: 1}"]) == 0
    assert complete_steps(begun)[-1] == 3


def test_what_runs_commands_is_allowed_anew(begun: Path, tmp_path: Path) -> None:
    """A run directory may be somebody else's."""
    copy = tmp_path / "theirs"
    shutil.copytree(begun, copy)
    resolved = yaml.safe_load((copy / "pretrain.yaml").read_text())
    resolved["data"] |= {"path": "pipe:touch x", "allow_pipe": True}
    (copy / "pretrain.yaml").write_text(yaml.safe_dump(resolved))
    adapt = tmp_path / "a.yaml"
    adapt.write_text(yaml.safe_dump({"start": {"checkpoint": str(copy)}, "schedule": {"iterations": 1}}))
    for config in (
        load_continuation(str(copy), []),
        load_continuation(str(copy), [f"run_dir={tmp_path / 'branch'}"]),
        load_adaptation(str(adapt), []),
    ):
        assert config.data.path == "pipe:touch x"
        assert not config.data.allow_pipe
    assert load_continuation(str(copy), ["data.allow_pipe=true"]).data.allow_pipe
