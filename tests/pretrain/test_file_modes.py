"""Files and folders of a training, and of what is exported, have the modes that the umask leaves."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import tiny_config

from curation.local_files import set_usual_mode
from pretrain.export import Format, export
from pretrain.train import train

EXPORTS: dict[Format, str] = {
    "huggingface": "hf", "timm": "timm", "safetensors": "o.safetensors", "onnx": "o.onnx",
}  # fmt: skip
pytestmark = pytest.mark.usefixtures("symbolic_sizes")


@pytest.fixture(params=[0o027, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes_below(folder: Path) -> dict[str, str]:
    """The modes that are not those of the umask's files and folders."""
    found = {}
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.rglob("*"):
        usual = (0o777 if path.is_dir() else 0o666) & ~umask
        if (mode := path.stat().st_mode & 0o7777) != usual:
            found[str(path.relative_to(folder))] = f"{mode:o}"
    return found


def test_of_a_training_and_of_its_exports(drawn: Path, tmp_path: Path, umask: int) -> None:
    run_dir = tmp_path / "made" / "run"
    schedule = {"iterations": 1, "lr_warmup": 0}
    data = {"path": str(drawn), "workers": 0}
    train(tiny_config(run_dir=str(run_dir), data=data, schedule=schedule), quiet=True)
    for kind, name in EXPORTS.items():
        if kind != "onnx" or umask == 0o027:  # a graph takes seconds
            export(run_dir, format=kind, out=tmp_path / "made" / "exports" / name)
    assert (run_dir / "hashes.jsonl").exists()
    assert list(run_dir.glob("cache/places*"))
    assert modes_below(tmp_path / "made") == {}


def test_of_a_private_file(tmp_path: Path, umask: int) -> None:
    private = tmp_path / "weights"
    private.touch(mode=0o600)
    set_usual_mode(private)
    assert private.stat().st_mode & 0o777 == 0o666 & ~umask
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]
