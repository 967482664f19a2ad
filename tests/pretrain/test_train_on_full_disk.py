"""A training whose disk fills up says so, keeps its checkpoints, and goes on once there is room."""

from pathlib import Path

import pytest
from faults.disks import enlarge, fill, small_disk
from test_train import alone, outcome

from curation.errors import ExecutorError
from pretrain import train
from pretrain.checkpoint_files import complete_steps, step_dir
from pretrain.data.images import Images, Spool
from pretrain.export import export


def test_a_checkpoint_that_finds_no_room_costs_itself_alone(drawn: Path, tmp_path: Path) -> None:
    whole = alone(drawn, tmp_path / "whole")
    size = sum(path.stat().st_size for path in train.train(whole, quiet=True).iterdir())
    with small_disk(tmp_path / "disk", num_bytes=int(size * 1.6)) as disk:
        config = alone(drawn, disk / "run")
        with pytest.raises(
            ExecutorError, match=f"The disk is full: {disk}/run/checkpoints/step-00000004"
        ) as caught:
            train.train(config, quiet=True)
        assert "room for" in str(caught.value)
        assert complete_steps(disk / "run") == [2]
        assert [path.name for path in (disk / "run" / "checkpoints").iterdir()] == ["step-00000002"]
        enlarge(disk, num_bytes=size * 8)
        train.train(config, quiet=True)
        assert outcome(disk / "run", 6) == outcome(tmp_path / "whole", 6)


def test_places_that_find_no_room_end_no_process(drawn: Path, tmp_path: Path) -> None:
    """A page of a memory map that finds no room would: SIGBUS."""
    with small_disk(tmp_path / "disk", num_bytes=64 << 10) as disk:
        fill(disk)
        with pytest.raises(ExecutorError, match=r"The disk is full: .*\.places-"):
            Images(str(drawn), cache=disk, spool=Spool(tmp_path, 0))
        assert not list(disk.glob(".places*"))


def test_an_export_that_finds_no_room(drawn: Path, tmp_path: Path) -> None:
    train.train(alone(drawn, tmp_path / "run", schedule={"iterations": 2}), quiet=True)
    checkpoint = step_dir(tmp_path / "run", 2)
    with small_disk(tmp_path / "disk", num_bytes=32 << 10) as disk:
        for kind, name in (("safetensors", "a.safetensors"), ("huggingface", "hf")):
            with pytest.raises(ExecutorError, match=f"The disk is full: {disk}"):
                export(checkpoint, format=kind, out=disk / name)
            assert not list(disk.iterdir())
