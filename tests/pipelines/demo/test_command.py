"""`lvd demo` from end to end, with a small web and a few steps; its real length is that of `make demo`."""

import json

import pytest

from curation.errors import ConfigError
from pipelines.config.run_config import validate
from pipelines.demo import command
from pipelines.demo.command import Size, demo
from pipelines.demo.quality import (
    ADAPTED,
    NEIGHBOURS,
    PRETRAINED,
    STUDENT,
    TRUSTED_ONLY,
    UNTRAINED,
    lay_out_labelled,
    quality_failures,
    quality_table,
)
from pipelines.demo.training import ChainSteps, demo_chain, demo_training
from pipelines.demo.web import CURATED, draw_web, trusted_config
from pipelines.training.evaluate import Measured
from pretrain.weight_files import find_weights
from pretrain.weights import load_backbone

SIZE = Size(num_images=90, first_steps=2, chain=ChainSteps(pretrain=3, adapt=1, distill=2))
STUDENTS = (f"{STUDENT}small", f"{STUDENT}smaller")


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
    before, after = ("pixels, 32 × 32", "gist", UNTRAINED, TRUSTED_ONLY), (PRETRAINED, ADAPTED, *STUDENTS)
    assert tuple(data["quality"]) == before + after
    assert find_weights(root / "vit-trusted").parent.name == "step-00000002"
    embedder = data["quality"][TRUSTED_ONLY]["embedder"]
    assert embedder.removeprefix("vit:") in (root / "run" / "run.yaml").read_text()
    pretrained = load_backbone(root / "chain" / "pretrain").config
    assert load_backbone(root / "vit-untrained.safetensors").config == pretrained
    assert data["scores"]["leaks"]


def test_the_chain_is_whole_and_its_models_become_smaller(found):
    data, _, root = found
    links = json.loads((root / "chain" / "chain.json").read_text())["links"]
    steps = {link["name"]: link["step"] for link in links}
    trained = {"pretrain": 3, "adapt": 1, "distill/small": 2, "distill/smaller": 2, "evaluate": None}
    exports = dict.fromkeys(f"export/{name}-huggingface" for name in ("small", "smaller"))
    assert steps == trained | exports
    names = (PRETRAINED, ADAPTED, *STUDENTS)
    pretrained, adapted, small, smaller = (data["quality"][name]["num_parameters"] for name in names)
    assert adapted > pretrained > small > smaller  # adapted to a larger size, it has more positions
    assert data["quality"]["gist"]["num_parameters"] is None


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
@pytest.mark.parametrize("which", [PRETRAINED, ADAPTED])
def test_a_training_that_teaches_nothing_is_a_failure(which, after, num_failures):
    found = {UNTRAINED: measured(0.5), TRUSTED_ONLY: measured(0.1), STUDENTS[0]: measured(0.1)}
    found |= {PRETRAINED: measured(0.6), ADAPTED: measured(0.6), which: measured(after)}
    failures = quality_failures(found)
    assert len(failures) == num_failures
    assert all(repr(which) in line for line in failures)
    assert quality_table(found, {"x": 7}).row_count == len(found)


def test_the_trainings_are_short_and_their_warm_ups_too(tmp_path):
    config = demo_training(tmp_path / "run", tmp_path / "vit", seed=1, num_steps=60)
    whole = demo_training(tmp_path / "run", tmp_path / "vit", seed=1, num_steps=600)
    assert (config.schedule.iterations, config.schedule.lr_warmup) == (60, whole.schedule.lr_warmup // 10)
    assert config.data.path == str(tmp_path / "run")


def test_every_link_of_the_chain_is_short(tmp_path):
    steps = ChainSteps(pretrain=60, adapt=6, distill=40)
    where = {"labelled": tmp_path / "labelled", "test": tmp_path / "test"}
    plan = demo_chain(tmp_path / "run", tmp_path / "chain", seed=5, steps=steps, **where)
    first = demo_training(tmp_path / "run", tmp_path / "vit", seed=5, num_steps=60)
    assert plan.pretraining.model == first.model
    trainings = (plan.pretraining, plan.adaptation, plan.distillation)
    assert [one.schedule.iterations for one in trainings] == [60, 6, 40]
    assert [one.schedule.lr_warmup for one in trainings] == [6, 0, 4]
    assert {one.seed for one in trainings} == {5}
    assert {one.data.path for one in trainings} == {str(tmp_path / "run")}


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
