"""`lvd plan` of a training: its rates, what fits, and what it says."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from curation.errors import ConfigError
from pipelines.cli.main import main
from pipelines.plan.rates import read_rates
from pipelines.plan.training.answer import TrainingQuestion, plan_training
from pipelines.plan.training.fits import RESERVED, Limits, options, training_s
from pipelines.plan.training.shapes import Cards, changed, shape_of
from pipelines.plan.training.speed import Speed, own_speed, published_speed, speed_like
from pipelines.plan.training.words import training_data, training_lines
from pipelines.training.pretraining import load_pretraining, resolved_yaml
from pretrain.config import PretrainConfig
from pretrain.cost.memory import peak
from pretrain.cost.work import image_flops
from pretrain.data.masking import mask_batch
from tests.pretrain.drawn_dataset import write_drawn
from tests.pretrain.tiny import tiny_config

import numpy as np  # isort: skip

NO_LIMITS = TrainingQuestion(Limits())


def small_gpu(*settings: str) -> PretrainConfig:
    return load_pretraining("small_gpu.yaml", ["data.path=/runs/x", *settings])


def write_training(run_dir: Path, config: PretrainConfig, *, step_s: float, waits: float) -> None:
    """A run directory as `lvd pretrain` leaves it, of 12 steps of which the last two tell."""
    run_dir.mkdir()
    (run_dir / "pretrain.yaml").write_text(resolved_yaml(config))
    lines = [{"step": n, "step_s": 9.0 if n <= 10 else step_s, "data_wait": waits} for n in range(1, 13)]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_shape_of_a_config() -> None:
    shape = shape_of(small_gpu("accumulate=4"), Cards(2))
    assert (shape.globals_.rows, shape.locals_.columns, shape.locals_.num) == (16, 7, 8)
    assert (shape.rank_images, shape.piece_images, shape.iterations) == (128, 32, 40_000)
    assert shape.students[0].backbone.drop_path == 0.1
    assert shape.masked_patches == pytest.approx(2 * 256 * 0.5 * 0.3)
    # As they are drawn: the mean of many batches, and the deviation of single crops.
    masking, rng = small_gpu().masking, np.random.default_rng(0)
    drawn = np.concatenate([mask_batch(64, (16, 16), masking, rng).sum(axis=1) for _ in range(20)])
    assert 2 * drawn.mean() == pytest.approx(shape.masked_patches, rel=0.03)
    assert drawn.std() == pytest.approx(shape.masked_deviation, rel=0.03)


def test_time_by_hand() -> None:
    shape = shape_of(small_gpu(), Cards(4))
    speed = Speed(0.01, "a test", step_s=0.36)
    assert speed.of_step(64) == pytest.approx(1.0)
    assert training_s(shape, speed) == pytest.approx(40_000)
    assert training_s(shape, replace(speed, num_done=39_000)) == pytest.approx(1_000)
    loading = replace(speed, load_image_s=0.02)
    assert loading.of_step(64) == pytest.approx(1.28)
    assert loading.is_loading(64)
    assert not speed.is_loading(64)
    # Twice the operations: the card takes longer, the loading does not.
    assert loading.scaled(2.0).of_step(64) == pytest.approx(0.36 + 1.28)
    assert training_s(shape, None) is None


def test_a_training_tells_its_own_rate(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    config = tiny_config(run_dir=str(run_dir), schedule={"iterations": 100})
    shape = shape_of(config, Cards())
    assert own_speed(config, shape) is None
    write_training(run_dir, config, step_s=0.8, waits=0.02)
    speed = own_speed(config, shape)
    assert speed is not None
    assert speed.of_step(8) == pytest.approx(0.8 * 0.98)  # the steps that warmed up are left out
    assert (speed.num_done, speed.load_image_s, speed.knows_loading) == (12, None, True)
    wider = changed(config, heads__hidden_dim=64)
    assert own_speed(wider, shape_of(wider, Cards())) is None  # another training: its metrics tell nothing
    lines = training_lines(plan_training(config, NO_LIMITS), now=0.0)
    assert any("88 iterations, 12 are done: 69.0 s, until 1970-01-01 00:01 UTC" in line for line in lines)
    assert "what limits it is the process: it does not wait for data" in lines


def test_a_training_that_waits_for_data(tmp_path: Path) -> None:
    config = tiny_config(run_dir=str(tmp_path / "run"))
    write_training(tmp_path / "run", config, step_s=0.8, waits=0.5)
    speed = speed_like(str(tmp_path / "run"), shape_of(config, Cards()))
    assert speed.of_step(8) == pytest.approx(0.8)
    assert speed.is_loading(8)
    assert speed.num_done == 0
    deeper = changed(config, model__depth=4)
    shape = shape_of(deeper, Cards())
    factor = image_flops(shape) / image_flops(shape_of(config, Cards()))
    assert speed_like(str(tmp_path / "run"), shape).image_s == pytest.approx(0.05 * factor)
    plan = plan_training(deeper, replace(NO_LIMITS, like=str(tmp_path / "run")))
    assert any(line.startswith("what limits it is the loading of images") for line in training_lines(plan))
    with pytest.raises(ConfigError, match="tells no rates of a training"):
        speed_like(str(tmp_path), shape)


def test_published_rates_are_scaled_by_operations() -> None:
    file = read_rates("a100.yaml")
    same = load_pretraining("vitl16_short.yaml", ["data.path=/x"])
    speed = published_speed(file, "a100.yaml", shape_of(same, Cards(32)))
    assert speed is not None
    assert 1 / speed.image_s == pytest.approx(93)
    assert speed.is_published
    shape = shape_of(small_gpu(), Cards())
    small = published_speed(file, "a100.yaml", shape)
    assert small is not None
    factor = image_flops(shape) / image_flops(shape_of(same, Cards()))
    assert small.image_s == pytest.approx(speed.image_s * factor)
    assert f"{factor:.2f} times as many operations" in small.source
    # 32 GPUs × 93 images/s for 125,000 steps of 2,048: the day that the run took.
    plan = plan_training(same, TrainingQuestion(Limits(), num_cards=32, rates="a100.yaml"))
    assert plan.seconds == pytest.approx(125_000 * 2_048 / (32 * 93))
    assert any(line.startswith("an estimate from published rates:") for line in training_lines(plan))
    assert published_speed(read_rates("v100.yaml"), "v100.yaml", shape) is None


def test_what_fits_does_fit_and_more_room_fits_more() -> None:
    config, cards = small_gpu(), Cards()
    counts = []
    for memory_bytes in (4e9, 8e9, 24e9, 80e9):
        found = options(config, cards, Limits(memory_bytes), Speed(0.002, "a test"))
        for option in found:
            one = changed(
                config, model__arch=option.arch, batch_images=option.batch_images,
                accumulate=option.accumulate,
                parallel__checkpoint_activations=option.checkpoint_activations,
            )  # fmt: skip
            highest = peak(shape_of(one, cards)).num_bytes
            assert highest == option.peak_bytes <= (1 - RESERVED) * memory_bytes
            if option.accumulate > 1:  # fewer pieces would not have had room
                fewer = max(n for n in range(1, option.accumulate) if option.batch_images % n == 0)
                whole = peak(shape_of(changed(one, accumulate=fewer), cards)).num_bytes
                assert whole > (1 - RESERVED) * memory_bytes
        first = found[0]
        assert (first.arch, first.batch_images) == ("vit_small", 256)
        counts.append(len({(option.arch, option.batch_images) for option in found}))
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_a_deadline() -> None:
    config, speed = small_gpu(), Speed(0.01, "a test")
    whole_s = training_s(shape_of(config, Cards()), speed)
    assert whole_s == pytest.approx(40_000 * 2.56)
    found = [options(config, Cards(), Limits(None, share * whole_s), speed) for share in (0.3, 0.6, 1.0)]
    numbers = [len(one) for one in found]
    assert numbers == sorted(numbers)
    assert found[0][0].batch_images == 64
    assert found[2][0].flags == ""  # as it is
    assert all((option.seconds or 0) <= 0.3 * whole_s for option in found[0])
    # Without a rate nobody knows, and nothing is left out for it.
    assert options(config, Cards(), Limits(None, 1.0), None)


def test_the_settings_that_make_it_fit() -> None:
    plan = plan_training(small_gpu(), TrainingQuestion(Limits(8e9)))
    assert not plan.fits
    best = plan.options[0]
    assert best.flags == f"--set accumulate={best.accumulate}"
    fitting = small_gpu(*(f"{name}={value}" for name, value in best.settings.items()))
    again = plan_training(fitting, TrainingQuestion(Limits(8e9)))
    assert again.fits
    assert again.peak.num_bytes == best.peak_bytes
    assert training_data(again)["fits"]
    assert any(line.startswith("it fits a card of 8.0 GB") for line in training_lines(again))
    nothing = training_lines(plan_training(small_gpu(), TrainingQuestion(Limits(1e8))))
    assert any(line.startswith("nothing else does") for line in nothing)


def test_steps_are_measured_here(tmp_path: Path) -> None:
    dataset = write_drawn(tmp_path / "data")
    config = tiny_config(run_dir=str(tmp_path / "run"), data={"path": str(dataset), "workers": 0})
    plan = plan_training(changed(config, accumulate=2), replace(NO_LIMITS, measure=True))
    assert plan.speed is not None
    assert plan.shape.device == "cpu"
    assert 0 < plan.speed.image_s < 10
    assert (plan.speed.load_image_s or 0) > 0
    assert plan.speed.source.startswith("steps of 2, 4 images timed here (cpu, fp32, 1 threads); loading of")
    assert not (tmp_path / "run").exists()
    gone = plan_training(changed(config, data__path=str(tmp_path)), replace(NO_LIMITS, measure=True))
    assert gone.speed is not None
    assert "loading was not measured: " in gone.speed.source
    huge = changed(config, model__arch="vit_giant", model__depth=2_000)
    with pytest.raises(ConfigError, match="does not fit this machine"):
        plan_training(huge, replace(NO_LIMITS, measure=True))


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["plan", "small_gpu.yaml", "--memory", "24GB", "--deadline", "2d", "--rates", "a100.yaml"]
    assert main([*arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert not found["fits"]
    assert found["is_published"]
    assert found["options"][0]["settings"] == {"parallel.checkpoint_activations": "true"}
    assert sum(found["moments"][2]["bytes"].values()) == found["peak_bytes"]
    assert main([*arguments, "--set", "accumulate=16"]) == 0
    text = capsys.readouterr().out
    assert "it fits a card of 24.0 GB, of which 10% is left free, and 48.0 h of time" in text
    assert main(["plan", "small_gpu.yaml", "--gpus", "3"]) == 2
    assert "The batch cannot be cut evenly" in capsys.readouterr().err
    assert main(["plan", "small_gpu.yaml", "--images", "1e6"]) == 2
    assert "--images is for the plan of a curation" in capsys.readouterr().err


def test_a_training_that_has_begun_and_another_stage_of_one_are_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ([str(tmp_path)], ["adapt_518.yaml", "--set", f"start.checkpoint={tmp_path}"]):
        assert main(["plan", *arguments]) == 2
        assert f"No training has begun in {tmp_path}" in capsys.readouterr().err


def test_a_run_that_trains_is_planned_with_its_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "web").mkdir()
    source = {"kind": "folder", "path": str(tmp_path / "web")}
    run = {"run_dir": str(tmp_path / "run"), "pools": {"web": {"role": "uncurated", "sources": [source]}}}
    section = {"batch_images": 64, "schedule": {"iterations": 100}}
    path = tmp_path / "both.yaml"
    path.write_text(yaml.safe_dump({**run, "pretrain": section}))
    assert main(["plan", str(path), "--no-probe", "--memory", "80GB"]) == 0
    text = capsys.readouterr().out
    assert "ingest" in text
    assert "pretrain: vit_small, patches of 14 px; 100 iterations of 64 images, on 1 card, bf16" in text
    assert "it fits a card of 80.0 GB" in text
    assert main(["plan", str(path), "--no-probe", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["training"]["batch_images"] == 64
    path.write_text(yaml.safe_dump(run))
    assert main(["plan", str(path), "--no-probe", "--memory", "80GB"]) == 2
    assert "has none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--memory", "24GBs", "'24GBs': a size with its unit, such as 24GB is expected"),
        ("--memory", "24", "a size with its unit"),
        ("--memory", "0GB", "a size with its unit"),
        ("--deadline", "3 moons", "a time with its unit, such as 12h or 3d is expected"),
    ],
)
def test_amounts_that_cannot_be_meant(
    flag: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "small_gpu.yaml", flag, value])
    assert said in capsys.readouterr().err
