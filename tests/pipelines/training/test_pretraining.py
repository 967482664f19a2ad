"""`lvd pretrain`: its configs, its run directory, and a training of a few steps from the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from curation.errors import ConfigError
from pipelines.cli.main import main
from pipelines.config.read import ALL_FOLDERS
from pipelines.config.run_config import RunConfig, load_config
from pipelines.engine.lock import lock
from pipelines.plan.how_far import how_far
from pipelines.training.pretraining import load_pretraining, pretraining_of, resolved_yaml
from pretrain.config import PretrainConfig
from pretrain.schedules import scaled_lr
from pretrain.weights import load_backbone

TRAINING = {
    "batch_images": 4,
    "data": {"workers": 0},
    "model": {"arch": "vit_micro", "depth": 1, "patch_px": 8, "layer_scale": 1.0, "drop_path": 0.0},
    "heads": {"prototypes": 32, "hidden_dim": 32, "bottleneck_dim": 16},
    "crops": {"global_size_px": 32, "local_size_px": 16, "num_local": 1},
    "schedule": {"iterations": 2},
    "parallel": {"device": "cpu", "dtype": "fp32", "threads": 1},
}
# Those of other stages say what they begin with, and have tests of their own.
STAGES = ("adapt_", "distill_", "chain_", "continue_")
SHIPPED = sorted(p.name for p in ALL_FOLDERS[1].glob("*.yaml") if not p.name.startswith(STAGES))
OFFICIAL = {
    "vitl16_short.yaml": {
        "arch": "vit_large", "patch_px": 16, "ffn": "mlp", "local_px": 96, "batch": 2048, "lr": 5.66e-3,
        "iterations": 125_000, "warmup": 12_500, "decay": (0.04, 0.4), "momentum": (0.992, 1.0),
        "layer_decay": 0.9, "drop_path": 0.3, "prototypes": 65_536, "bottleneck": 256, "separate": False,
        "centring": "softmax",
    },
    "vitl14.yaml": {
        "arch": "vit_large", "patch_px": 14, "ffn": "mlp", "local_px": 98, "batch": 3072, "lr": 3.46e-4,
        "iterations": 625_000, "warmup": 100_000, "decay": (0.04, 0.2), "momentum": (0.994, 1.0),
        "layer_decay": 1.0, "drop_path": 0.4, "prototypes": 131_072, "bottleneck": 384, "separate": True,
        "centring": "sinkhorn",
    },
    "vitg14.yaml": {
        "arch": "vit_giant", "patch_px": 14, "ffn": "swiglu", "local_px": 98, "batch": 3072, "lr": 3.46e-4,
        "iterations": 625_000, "warmup": 100_000, "decay": (0.04, 0.2), "momentum": (0.994, 1.0),
        "layer_decay": 1.0, "drop_path": 0.4, "prototypes": 131_072, "bottleneck": 384, "separate": True,
        "centring": "sinkhorn",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_training_is_valid(name: str) -> None:
    config = load_pretraining(name, ["data.path=/runs/x"])
    assert config.run_dir == f"runs/{name.removesuffix('.yaml')}"
    config.backbone(drop_path=config.model.drop_path)  # its parts fit


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_official_setups_have_the_published_constants(name: str) -> None:
    """Source: arXiv:2304.07193, Tables 16 and 17, and the configuration files of the official code."""
    config = load_pretraining(name, ["data.path=/runs/x"])
    wanted, schedule = OFFICIAL[name], config.schedule
    shape = config.backbone(drop_path=config.model.drop_path)
    heads, own = config.head_shapes()
    assert (config.model.arch, shape.patch_px, shape.ffn) == (
        wanted["arch"], wanted["patch_px"], wanted["ffn"],
    )  # fmt: skip
    assert (shape.drop_path, shape.layer_scale, shape.registers) == (wanted["drop_path"], 1e-5, 0)
    assert config.crops.local_size_px == wanted["local_px"]
    assert (config.crops.global_size_px, config.crops.num_local) == (224, 8)
    assert config.crops.blur == "released"
    assert config.batch_images == wanted["batch"]
    lr = scaled_lr(schedule.base_lr, batch_images=config.batch_images)
    assert lr == pytest.approx(wanted["lr"], rel=2e-3)
    assert (schedule.iterations, schedule.lr_warmup) == (wanted["iterations"], wanted["warmup"])
    assert (schedule.weight_decay, schedule.weight_decay_end) == wanted["decay"]
    assert (schedule.momentum, schedule.momentum_end) == wanted["momentum"]
    assert (schedule.min_lr, schedule.freeze_last_layer) == (1e-6, 1_250)
    assert (schedule.teacher_temperature_start, schedule.teacher_temperature) == (0.04, 0.07)
    assert schedule.teacher_temperature_warmup == 37_500
    assert config.optimizer.layer_decay == wanted["layer_decay"]
    assert (config.optimizer.patch_embed_lr, config.optimizer.clip) == (0.2, 3.0)
    assert config.optimizer.betas == (0.9, 0.999)
    assert (heads.prototypes, heads.bottleneck_dim) == (wanted["prototypes"], wanted["bottleneck"])
    assert heads.hidden_dim == 2_048
    assert (own is not None) == wanted["separate"]
    if own is not None:
        assert (own.prototypes, own.bottleneck_dim) == (wanted["prototypes"], 256)
    objective = config.objective
    assert (objective.centring, objective.koleo_over) == (wanted["centring"], "rank")
    assert (objective.dino_weight, objective.ibot_weight, objective.koleo_weight) == (1.0, 1.0, 0.1)
    assert (objective.student_temperature, objective.centre_momentum) == (0.1, 0.9)
    assert (config.masking.probability, config.masking.ratio_min, config.masking.ratio_max) == (0.5, 0.1, 0.5)


def test_a_config_of_a_run_brings_its_training_along() -> None:
    config = load_pretraining("curate_then_pretrain.yaml", ["root=/data"])
    assert (config.data.path, config.run_dir) == ("runs/photos", "runs/photos/pretrain")
    own = ["pretrain.data.path=/other", "pretrain.run_dir=/elsewhere"]
    config = load_pretraining("curate_then_pretrain.yaml", own)
    assert (config.data.path, config.run_dir) == ("/other", "/elsewhere")


def write(path: Path, data: object) -> str:
    path.write_text(yaml.safe_dump(data))
    return str(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("batch_images=0", ["batch_images", "greater than or equal to 1", "got 0"]),
        ("schedule.iteratoins=5", ["schedule.iteratoins", "did you mean iterations?"]),
        ("crops.local_size_px=15", ["the config", "crops.local_size_px (15)", "model.patch_px (8)"]),
        ("data.workers=2", ["data.path is missing", "--set data.path="]),
    ],
)
def test_a_wrong_training_names_its_fields(tmp_path: Path, change: str, said: list[str]) -> None:
    file = write(tmp_path / "t.yaml", TRAINING)
    with pytest.raises(ConfigError) as error:
        load_pretraining(file, [change])
    assert file in str(error.value)
    for part in said:
        assert part in str(error.value)


def test_a_run_without_a_training_says_so(tmp_path: Path, config_file: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="no section pretrain"):
        load_pretraining(str(config_file(tmp_path / "c.yaml", tmp_path / "run")), [])
    with pytest.raises(ConfigError, match=r"none\.yaml.*curate_then_pretrain\.yaml.*tiny_cpu\.yaml"):
        load_pretraining("none.yaml", [])


def test_the_resolved_config_has_defaults_and_no_credentials() -> None:
    config = PretrainConfig.model_validate({**TRAINING, "data": {"path": "s3://key:secret@bucket/run"}})
    text = resolved_yaml(config)
    assert "secret" not in text
    assert yaml.safe_load(text)["optimizer"]["betas"] == [0.9, 0.999]


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_train_go_on_evaluate_and_export(
    tmp_path: Path, finished: Path, web: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "t.yaml", TRAINING)
    run_dir = tmp_path / "training"
    arguments = ["pretrain", file, "--set", f"data.path={finished}", "--set", f"run_dir={run_dir}"]
    checkpoint = ask(capsys, *arguments)["checkpoint"]
    assert checkpoint == str(run_dir / "checkpoints" / "step-00000002")
    assert yaml.safe_load((run_dir / "pretrain.yaml").read_text())["data"]["path"] == str(finished)
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert said.out == f"checkpoint: {checkpoint}\n"
    assert "going on from" in said.err

    folders = ["--train", str(web / "curated"), "--test", str(web / "holdout"), "--k", "1,3"]
    found = ask(capsys, "evaluate", "pixels", "gist", str(run_dir), f"vit:{checkpoint}", *folders)
    assert [one["dim"] for one in found] == [3 * 32**2, 664, 96, 96]
    assert {**found[2], "embedder": ""} == {**found[3], "embedder": ""}
    for one in found:
        assert set(one["knn"]) == {"1", "3"}
        assert all(0 <= share <= 1 for share in one["knn"].values())
    assert main(["evaluate", "pixels", *folders]) == 0
    assert "k-NN, k = 3" in capsys.readouterr().out

    out = str(tmp_path / "out.safetensors")
    assert ask(capsys, "export", str(run_dir), "--format", "safetensors", "--out", out) == {
        "out": out,
        "card": f"{out}.md",
    }
    assert load_backbone(out).config == load_backbone(run_dir).config
    assert main(["export", str(run_dir), "--format", "safetensors", "--out", out]) == 2
    assert "there already" in capsys.readouterr().err


def test_one_training_at_a_time(tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "t.yaml", TRAINING)
    run_dir = str(tmp_path / "training")
    with lock(run_dir):
        assert main(["pretrain", file, "--set", f"data.path={finished}", "--set", f"run_dir={run_dir}"]) == 1
    assert "Another run owns" in capsys.readouterr().err


def test_one_config_curates_and_trains(
    tmp_path: Path,
    config_file: Callable[..., Path],
    configure: Callable[..., RunConfig],
    run_quietly: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The section changes nothing about the curation: what is done stays done."""
    run_dir = tmp_path / "run"
    run_quietly(configure(run_dir))
    before = sorted((run_dir / "steps").rglob("*"))
    config = str(config_file(tmp_path / "c.yaml", run_dir, f"pretrain={json.dumps(TRAINING)}"))
    loaded = load_config(config, [])
    assert [state.name for state in how_far(loaded) if state.num_done < state.num_items] == []
    assert pretraining_of(loaded).data.path == str(run_dir)
    assert main(["run", config, "--until", "shard"]) == 0
    assert not (run_dir / "pretrain").exists()
    manifest = ask(capsys, "run", config)
    assert manifest["checkpoint"] == str(run_dir / "pretrain" / "checkpoints" / "step-00000002")
    assert manifest["config_sha256"]
    assert sorted((run_dir / "steps").rglob("*")) == before
    assert ask(capsys, "status", str(run_dir))["config_is_same"]
    assert "checkpoint" not in json.loads((run_dir / "manifest.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["clip"], "vit:CHECKPOINT"),
        (["precomputed:v.parquet"], "looks at pictures"),
    ],
)
def test_what_cannot_be_evaluated(
    web: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(web / "curated")
    assert main(["evaluate", *arguments, "--train", folder, "--test", folder]) == 2
    assert said in capsys.readouterr().err
