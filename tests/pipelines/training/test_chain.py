"""`lvd chain`: every link begins with the one before, by hash; stopped anywhere, it ends in the same bits."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from curation.errors import ConfigError, IntegrityError, StoppedError
from pipelines.cli.main import main
from pipelines.training import chain as chain_module
from pipelines.training.chain import ChainOutcome, load_chain, plan_chain, run_chain
from pipelines.training.chain_links import RECORD
from pretrain import loop
from pretrain.checkpoint_files import TEACHER, read_facts, step_dir
from pretrain.config import ModelConfig
from pretrain.model.vit import ViTConfig
from pretrain.train_step import State
from pretrain.weights import load_backbone

SMALL = {"arch": "vit_micro", "depth": 1, "patch_px": 8, "layer_scale": 1.0, "drop_path": 0.0}
SETTINGS = "settings.yaml"  # of the tests
STEPS = {"pretrain": 3, "adapt": 3, "distill": 3}


def chain(run_dir: Path, dataset: Path, web: Path, **change: Any) -> dict[str, Any]:
    return {
        "run_dir": str(run_dir),
        "seed": 5,
        "data": {"path": str(dataset), "workers": 0},
        "parallel": {"device": "cpu", "dtype": "fp32", "threads": 1},
        "pretrain": {
            "batch_images": 4,
            "model": {**SMALL, "depth": 2},
            "heads": {"prototypes": 32, "hidden_dim": 32, "bottleneck_dim": 16},
            "crops": {"global_size_px": 32, "local_size_px": 16, "num_local": 1},
            "schedule": {"iterations": STEPS["pretrain"]},
        },
        "adapt": {"crops": {"global_size_px": 48}, "schedule": {"iterations": STEPS["adapt"]}},
        "distill": {
            "batch_images": 4,
            "crops": {"global_size_px": 32, "local_size_px": 16, "num_local": 1},
            "schedule": {"iterations": STEPS["distill"]},
            "students": {"one": {"model": SMALL}, "two": {"model": {**SMALL, "registers": 2}}},
        },
        "export": {"formats": ["safetensors"]},
        "evaluate": {"train": str(web / "curated"), "test": str(web / "holdout"), "neighbours": [1]},
        **change,
    }


def go(settings: dict[str, Any]) -> ChainOutcome:
    return run_chain(plan_chain(settings, where="the chain"), say=lambda _: None)


@pytest.fixture(scope="module")
def whole(finished: Path, web: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A chain that nothing happened to."""
    run_dir = tmp_path_factory.mktemp("chain") / "whole"
    settings = chain(run_dir, finished, web)
    outcome = go(settings)
    (run_dir / SETTINGS).write_text(yaml.safe_dump(settings))
    names = ["pretrain", "adapt", "distill/one", "distill/two", "evaluate"]
    assert [link.name for link in outcome.links][:5] == names
    assert list(outcome.measured) == ["pretrain", "adapt", "one", "two"]
    return run_dir


def results(run_dir: Path) -> dict[str, bytes]:
    """The weights of every model of a chain."""
    folders = {
        "pretrain": step_dir(run_dir / "pretrain", STEPS["pretrain"]),
        "adapt": step_dir(run_dir / "adapt", STEPS["adapt"]),
        "one": step_dir(run_dir / "distill/students/one", STEPS["distill"]),
        "two": step_dir(run_dir / "distill/students/two", STEPS["distill"]),
    }
    found = {name: (folder / TEACHER).read_bytes() for name, folder in folders.items()}
    exported = {p.name: p.read_bytes() for p in (run_dir / "export").glob("*.safetensors")}
    assert len(exported) == 2
    return found | exported


def test_every_link_names_the_one_before(whole: Path) -> None:
    links = {link["name"]: link for link in json.loads((whole / RECORD).read_text())["links"]}
    before = {"adapt": "pretrain", "distill/one": "adapt", "distill/two": "adapt", "evaluate": "distill/two"}
    for name, parent in before.items():
        assert links[name]["parent"] == links[parent]["sha256"]
    assert links["pretrain"]["parent"] is None
    assert links["export/one-safetensors.safetensors"]["parent"] == links["distill/one"]["sha256"]
    facts = read_facts(whole / links["adapt"]["path"])
    assert facts["parent"]["sha256"] == links["pretrain"]["sha256"]
    assert load_backbone(whole / "export/two-safetensors.safetensors").config.registers == 2
    # The card has what the chain has measured of this model.
    card = (whole / "export/two-safetensors.safetensors.md").read_text()
    assert "Scores of `lvd evaluate`" in card
    assert "None were measured" not in card


@pytest.mark.parametrize("how", ["killed", "SIGTERM"])
def test_stopped_in_every_link_it_comes_to_the_same_bits(
    how: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**yaml.safe_load((whole / SETTINGS).read_text()), "run_dir": str(tmp_path / "chain")}
    step = loop.train_step
    stopped: set[Path] = set()

    class Killed(BaseException):
        pass

    def failing(state: State, *arguments: Any, **options: Any) -> Any:
        folder = state.learners[0].folder
        if folder not in stopped and state.step == (1 if how == "killed" else 0):
            stopped.add(folder)
            if how == "killed":
                raise Killed
            os.kill(os.getpid(), signal.SIGTERM)  # another step is taken, and saved
        return step(state, *arguments, **options)

    monkeypatch.setattr(loop, "train_step", failing)
    num_stopped = 0
    for _ in range(9):
        try:
            go(settings)
        except (Killed, StoppedError):
            num_stopped += 1
        else:
            break
    assert num_stopped == 3
    assert results(tmp_path / "chain") == results(whole)


def test_what_is_done_is_not_done_again(
    whole: Path, finished: Path, web: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "train_step", None)
    monkeypatch.setattr(chain_module, "evaluate", None)
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*.safetensors")}
    measured = json.loads((whole / "evaluation.json").read_text())
    outcome = go(chain(whole, finished, web))
    assert {name: one.rank_me for name, one in outcome.measured.items()} == {
        name: one["rank_me"] for name, one in measured.items()
    }
    assert list(outcome.measured["one"].knn) == [1]
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("*.safetensors")} == before


@pytest.mark.parametrize("victim", ["pretrain", "distill/two", "export/one-safetensors.safetensors"])
def test_a_link_that_was_changed_since_is_told(
    victim: str, whole: Path, finished: Path, web: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "chain"
    shutil.copytree(whole, run_dir)
    links = {link["name"]: link for link in json.loads((run_dir / RECORD).read_text())["links"]}
    path = run_dir / links[victim]["path"]
    path = path / TEACHER if path.is_dir() else path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=f"link {victim} of the chain, is not what was written"):
        go(chain(run_dir, finished, web))


def test_a_chain_is_checked_before_anything_is_trained(tmp_path: Path, finished: Path, web: Path) -> None:
    wrong = {
        "pretrain.run_dir": {"pretrain": {"run_dir": "x"}},
        "no multiple of model.patch_px": {
            "adapt": {"crops": {"global_size_px": 50}, "schedule": {"iterations": 1}}
        },
        "set it to all": {"distill": None},
        "there is no such field": {"evalute": {}},
    }
    for said, change in wrong.items():
        with pytest.raises(ConfigError, match=said):
            plan_chain(chain(tmp_path, finished, web, **change), where="c.yaml")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["chain_tiny_cpu.yaml", "chain_small_gpu.yaml"])
def test_the_chains_that_come_along_are_valid(name: str, tmp_path: Path) -> None:
    """Each link is smaller than the one that it learns from, or larger in pictures."""
    plan = load_chain(name, [f"data.path={tmp_path}", f"run_dir={tmp_path / 'chain'}"])
    assert plan.adaptation is not None
    assert plan.distillation is not None
    assert plan.adaptation.crops.global_size_px > plan.pretraining.crops.global_size_px
    students = [blocks_of(student.model) for student in plan.distillation.students.values()]
    assert max(students) < blocks_of(plan.pretraining.model)


def blocks_of(model: ModelConfig) -> int:
    """Weights of a transformer's blocks, but for a factor that all have."""
    shape = model.shape(grid=4, drop_path=0.0)
    assert isinstance(shape, ViTConfig)
    return shape.dim**2 * shape.depth


def test_the_command(whole: Path, finished: Path, web: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = whole.parent / "chain.yaml"
    file.write_text(yaml.safe_dump(chain(whole, finished, web)))
    assert main(["chain", str(file)]) == 0
    said = capsys.readouterr()
    assert "pretrain is done" in said.err
    assert "distill/two" in said.out
    assert "k-NN, k = 1" in said.out
