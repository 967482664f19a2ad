"""What torch has pickled: tensors are read, objects are named, and nothing is run."""

import collections
import pickle
from pathlib import Path, PosixPath

import pytest
import torch

from pretrain.pickled import fault_of, read_pickled


@pytest.mark.parametrize("is_zip", [True, False])
def test_tensors_are_read(tmp_path: Path, is_zip: bool) -> None:
    state = collections.OrderedDict(weight=torch.arange(6.0).view(2, 3), step=torch.tensor(7))
    torch.save({"model": state, "epoch": 3}, tmp_path / "file.pt", _use_new_zipfile_serialization=is_zip)
    content = read_pickled(tmp_path / "file.pt")
    assert content["epoch"] == 3
    torch.testing.assert_close(content["model"], state)


@pytest.mark.parametrize("is_zip", [True, False])
def test_objects_are_named_and_not_made(tmp_path: Path, is_zip: bool) -> None:
    content = {"state": {"a": torch.ones(1)}, "path": PosixPath("/x"), "counted": collections.Counter("a")}
    torch.save(content, tmp_path / "file.pt", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(pickle.UnpicklingError) as raised:
        read_pickled(tmp_path / "file.pt")
    said = str(raised.value)
    assert said.startswith("Python objects, which are code and are not read: ")
    assert set(said.partition(": ")[2].split(", ")) == {"pathlib.PosixPath", "collections.Counter"}


def test_a_file_that_would_run_something_runs_nothing(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "harm",))

    torch.save({"x": Harm()}, tmp_path / "file.pt")
    with pytest.raises(pickle.UnpicklingError, match="Python objects"):
        read_pickled(tmp_path / "file.pt")
    assert not (tmp_path / "harm").exists()


def test_another_content_is_told_by_its_kind(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "file.pt")
    with pytest.raises(ValueError, match="a list where a dict was expected"):
        read_pickled(tmp_path / "file.pt")


def test_what_is_no_pickle_is_told_without_torchs_advice(tmp_path: Path) -> None:
    (tmp_path / "file.pt").write_bytes(b"not a pickle at all")
    with pytest.raises(pickle.UnpicklingError) as raised:
        read_pickled(tmp_path / "file.pt")
    assert "weights_only" not in str(raised.value)


def test_many_names_are_cut(tmp_path: Path) -> None:
    names = [f"some.module{number}.Thing" for number in range(12)]
    calls = b"".join(b"c" + name.rpartition(".")[0].encode() + b"\nThing\n0" for name in names)
    (tmp_path / "file.pt").write_bytes(b"\x80\x02" + calls + b"N.")
    said = fault_of(tmp_path / "file.pt", pickle.UnpicklingError("refused"))
    assert said.endswith(f"{', '.join(names[:10])} and 2 more")


def test_another_error_keeps_its_words(tmp_path: Path) -> None:
    assert fault_of(tmp_path / "gone.pt", OSError("no \n such   file")) == "no such file"
