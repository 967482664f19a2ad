"""What a card says of a model: all that lies around the weights, and of the rest that it is unknown."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from drawn_vit import drawn as drawn_model
from drawn_vit import small
from safetensors.torch import save_file

from pretrain.checkpoint_files import MARKER
from pretrain.export import export
from pretrain.model_card import Model, card_of
from pretrain.origin import Origin, origin_of
from pretrain.weights import metadata_of_config

WEIGHTS = "teacher.safetensors"
MODEL = Model("vits", "timm", "VisionTransformer", small(), 1_234, {"channels": 3})


def write_checkpoint(run_dir: Path, step: int, **facts: Any) -> tuple[Path, str]:
    """The files of a checkpoint that a card looks at; the folder, and the SHA-256 of its marker."""
    folder = run_dir / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "training.json").write_text(json.dumps({"step": step, **facts}))
    (folder / MARKER).write_text(json.dumps({"step": step, "run": run_dir.name}))
    return folder, hashlib.sha256((folder / MARKER).read_bytes()).hexdigest()


def write_run(tmp_path: Path) -> Path:
    """A run on a dataset, which began with a checkpoint that began with another one; its weights."""
    grandparent, first_sha256 = write_checkpoint(tmp_path / "a", 10)
    middle = {"path": str(grandparent), "step": 10, "sha256": first_sha256}
    parent, second_sha256 = write_checkpoint(tmp_path / "b", 20, parent=middle)
    last = {"path": str(parent), "step": 20, "sha256": second_sha256}
    identity = {"batch_images": 64, "schedule": {"iterations": 30}, "data": {}}
    folder, _ = write_checkpoint(
        tmp_path / "c", 30, images_seen=1_920, parent=last, identity=identity, dataset="d" * 64
    )
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    manifest = {
        "name": "birds | and <b>bees</b>",
        "dataset_dir": "dataset-1",
        "config_sha256": "c" * 64,
        "counts": {"pool": {"selected": 7}, "dataset": 11},
        "shards": [{"path": "a", "sha256": "0", "num_samples": 5}, {"path": "b", "num_samples": 6}],
    }
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    config = {"name": "third", "data": {"path": str(dataset)}}
    (tmp_path / "c" / "pretrain.yaml").write_text(yaml.safe_dump(config))
    lines = [{"step": 10, "knn_10": 0.25, "rank_me": 4.0}, {"step": 30, "knn_10": 0.75, "rank_me": 8.5}]
    lines += [{"step": 30, "loss": 1.0}, {"step": 40, "knn_10": 1.0, "rank_me": 9.0}]
    (tmp_path / "c" / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    measured = [{"embedder": "vit:x", "knn": {"10": 0.5}, "rank_me": 3.5}]
    (tmp_path / "c" / "evaluation.json").write_text(json.dumps(measured))
    return folder / WEIGHTS


def cells(card: str) -> dict[str, str]:
    """The tables of two columns."""
    rows = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("| ")]
    return {row[0]: row[1] for row in rows if len(row) == 2}


def front_matter(card: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_all_that_lies_there_is_told(tmp_path: Path) -> None:
    origin = origin_of(write_run(tmp_path))
    assert [(one.step, one.state) for one in origin.ancestors] == [(20, "as it was"), (10, "as it was")]
    assert origin.unknown == ()
    card = card_of(MODEL, origin, license_id="CC-BY-4.0")
    assert front_matter(card) == {
        "license": "cc-by-4.0",
        "library_name": "timm",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["image-feature-extraction", "self-supervised-learning", "dinov2", "lvd"],
        "datasets": ["birds | and <b>bees</b>"],
    }
    told = cells(card)
    assert told["parameters"] == "1,234"
    assert told["images_seen"] == "1920"
    assert told["schedule.iterations"] == "30"
    assert told["run"] == "third"
    assert told["images"] == "11"
    assert told["counts.pool.selected"] == "7"
    assert told["config_sha256"] == "c" * 64
    assert told["SHA-256 over its shards"] == "d" * 64
    assert told["knn_10"] == "0.75"  # of this step: a later one is of other weights
    assert told["0.knn.10"] == "0.5"
    for ancestor in origin.ancestors:
        assert ancestor.sha256 in card
    assert str(tmp_path) not in card


def test_a_chain_is_told_as_far_as_it_holds(tmp_path: Path) -> None:
    weights = write_run(tmp_path)
    marker = tmp_path / "b" / "checkpoints" / "step-00000020" / MARKER
    marker.write_text("{}")
    assert [one.state for one in origin_of(weights).ancestors] == ["changed since"]
    marker.unlink()
    assert [one.state for one in origin_of(weights).ancestors] == ["no longer there"]


def test_a_student_has_the_config_of_its_run(tmp_path: Path) -> None:
    folder, _ = write_checkpoint(tmp_path / "run" / "students" / "small", 5)
    (tmp_path / "run" / "distill.yaml").write_text("name: several\n")
    assert origin_of(folder / WEIGHTS).name == "several"


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    weights = write_run(tmp_path)
    (tmp_path / "dataset" / "manifest.json").write_text("[]")
    (tmp_path / "c" / "evaluation.json").write_text("{")
    (weights.parent / "training.json").write_text("\0")
    origin = origin_of(weights)
    assert origin.unknown == ("training.json", "a manifest of the dataset (damaged)", "evaluation.json")
    card = card_of(MODEL, origin, license_id=None)
    assert "- a manifest of the dataset (damaged)" in card
    (tmp_path / "dataset" / "manifest.json").unlink()
    assert "a manifest of the dataset (No such file or directory)" in origin_of(weights).unknown
    (tmp_path / "c" / "pretrain.yaml").write_text("data: {path: 's3://bucket/run'}")
    assert "a manifest of the dataset (it lies on another machine)" in origin_of(weights).unknown
    mixed = [{"path": "/x/{0..3}.tar"}, {"path": str(tmp_path / "dataset")}]
    (tmp_path / "c" / "pretrain.yaml").write_text(json.dumps({"data": {"mix": mixed}}))
    assert "a manifest of the dataset (tars that lvd has not written have none)" in origin_of(weights).unknown
    (tmp_path / "c" / "pretrain.yaml").write_text("]")
    assert "pretrain.yaml" in origin_of(weights).unknown


def test_nothing_is_made_up() -> None:
    card = card_of(MODEL, Origin(), license_id=None)
    assert front_matter(card)["license"] == "unknown"
    assert "datasets" not in front_matter(card)
    assert "Unknown: the weights were not exported from a checkpoint of lvd." in card
    assert "## Dataset\n\nUnknown." in card
    assert "None were measured." in card
    assert "Unknown: nobody has said under which licence" in card


def test_names_of_strangers_are_text() -> None:
    identity = {"name": "a|b\n---\n# c", "link": "[x](javascript:y) ![i](http://evil/i.png) <img src=x> `z`"}
    secret = {"weights": "https://user:pass@host/x?token=abc", "mail": "@somebody", "escape": "\x1b[2J"}
    card = card_of(MODEL, Origin(facts={"identity": identity | secret}), license_id=None)
    assert "pass" not in card
    assert "abc" not in card
    unescaped = re.sub(r"\\.", "", card)
    for active in ("](", "<img", "http://", "https://", " @", "\x1b", "\n# c", "`z"):
        assert active not in unescaped, active
    assert sum(line == "---" for line in card.splitlines()) == 2


@pytest.mark.parametrize(("kind", "name", "card"), [
    ("timm", "vits", "vits/README.md"), ("official", "vits.pth", "vits.pth.md"),
])  # fmt: skip
def test_it_lies_with_the_model(tmp_path: Path, kind: Any, name: str, card: str) -> None:
    config = small()
    save_file(dict(drawn_model(config).state_dict()), tmp_path / "v.safetensors", metadata_of_config(config))
    export(tmp_path / "v.safetensors", format=kind, out=tmp_path / name, license_id="apache-2.0")
    text = (tmp_path / card).read_text()
    assert front_matter(text)["license"] == "apache-2.0"
    assert cells(text)["native_px"] == "56"
    assert "apache-2.0, as whoever exported the model has said." in text


def test_a_teacher_that_is_a_file_is_not_said_to_be_gone(tmp_path: Path) -> None:
    teacher = tmp_path / "dinov2.pth"
    teacher.write_bytes(b"weights")
    parent = {"path": str(teacher), "step": None, "sha256": "ab"}
    folder, _ = write_checkpoint(tmp_path / "d", 30, parent=parent)
    [ancestor] = origin_of(folder / WEIGHTS).ancestors
    assert (ancestor.step, ancestor.sha256) == (None, "ab")
    assert ancestor.state == "there, not read again: dinov2.pth"
    teacher.unlink()
    assert origin_of(folder / WEIGHTS).ancestors[0].state == "no longer there"
