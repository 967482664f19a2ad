"""`lvd demo` from end to end, with a small web and a few steps; its real length is that of `make demo`."""

import json

import pytest

from curation.errors import ConfigError
from pipelines.config.run_config import validate
from pipelines.demo import command
from pipelines.demo.command import Size, demo
from pipelines.demo.quality import (
    NEIGHBOURS,
    PRETRAINED,
    TRUSTED_ONLY,
    UNTRAINED,
    lay_out_labelled,
    quality_failures,
    quality_table,
)
from pipelines.demo.training import demo_training
from pipelines.demo.web import CURATED, draw_web, trusted_config
from pipelines.training.evaluate import Measured
from pretrain.weight_files import find_weights
from pretrain.weights import load_backbone

SIZE = Size(num_images=90, first_steps=2, second_steps=3)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a small demo has printed as JSON, its exit code, and where it was."""
    root = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *texts, **_: lines.append(texts[0]))
        code = demo(str(root), seed=3, executor="local", as_json=True, size=SIZE)
    return json.loads(lines[0]), code, root


def test_the_demo_goes_all_the_way_round(found):
    data, code, root = found
    assert code == (1 if data["failures"] else 0)
    assert set(data["quality"]) == {"pixels, 32 × 32", "gist", UNTRAINED, TRUSTED_ONLY, PRETRAINED}
    for name, steps in (("vit-trusted", SIZE.first_steps), ("vit", SIZE.second_steps)):
        assert find_weights(root / name).parent.name == f"step-{steps:08d}"
    embedder = data["quality"][TRUSTED_ONLY]["embedder"]
    assert embedder.removeprefix("vit:") in (root / "run" / "run.yaml").read_text()
    assert load_backbone(root / "vit-untrained.safetensors").config == load_backbone(root / "vit").config
    assert data["scores"]["leaks"]


def test_leaks_are_no_neighbours(tmp_path):
    truth = draw_web(tmp_path / "web", seed=3, num_images=90)
    labelled = lay_out_labelled(tmp_path / "web", truth, tmp_path / "labelled")
    there = {str(path.relative_to(labelled)) for path in labelled.rglob("*.*")}
    trusted = [row for row in truth.to_pylist() if row["pool"] == CURATED]
    assert there == {row["key"] for row in trusted if row["kind"] == "original"}
    assert len(there) < len(trusted)


def measured(share):
    return Measured("x", 4, {NEIGHBOURS: share}, 2.0, 10, 5, 0, (), ())


@pytest.mark.parametrize(("after", "num_failures"), [(0.6, 0), (0.5, 1), (0.4, 1)])
def test_a_training_that_teaches_nothing_is_a_failure(after, num_failures):
    found = {UNTRAINED: measured(0.5), PRETRAINED: measured(after)}
    assert len(quality_failures(found)) == num_failures
    assert quality_table(found).row_count == 2


def test_the_trainings_are_short_and_their_warm_ups_too(tmp_path):
    config = demo_training(tmp_path / "run", tmp_path / "vit", seed=1, num_steps=60)
    whole = demo_training(tmp_path / "run", tmp_path / "vit", seed=1, num_steps=600)
    assert (config.schedule.iterations, config.schedule.lr_warmup) == (60, whole.schedule.lr_warmup // 10)
    assert config.data.path == str(tmp_path / "run")


def test_the_trusted_pictures_are_curated_without_the_web(tmp_path):
    config = validate(trusted_config(tmp_path, tmp_path / "run"), where="a test")
    assert [pool.role for pool in config.pools.values()] == ["curated", "holdout"]


@pytest.mark.parametrize("marked", [False, True])
def test_a_demo_removes_nothing_that_no_demo_made(tmp_path, marked):
    """`--out` may be any folder."""
    for name in ("web/holiday.jpg", "thesis.tex"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    if marked:
        (tmp_path / ".lvd-demo").touch()
    with pytest.raises(ConfigError, match=r"not empty, and not of a demo.*--out"):
        demo(str(tmp_path), seed=3, executor="local", as_json=True, size=SIZE)
    assert (tmp_path / "web" / "holiday.jpg").is_file()
    assert (tmp_path / "thesis.tex").is_file()


def test_a_demo_takes_the_place_of_an_earlier_one(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(command, "_go_round", lambda root, **_: made.append(sorted(root.rglob("*"))) or 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            demo(str(tmp_path / "out"), seed=3, executor="local", as_json=True, size=SIZE)
        (tmp_path / "out" / "run" / "steps").mkdir(parents=True)
        (tmp_path / "out" / "vit-untrained.safetensors").touch()
    assert made == [[tmp_path / "out" / ".lvd-demo"]] * 2
