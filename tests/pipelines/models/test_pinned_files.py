"""Files of weights: what is vouched for of their bytes."""

import hashlib
import re
import zipfile
from pathlib import Path

import pytest
import torch

from curation.errors import ModelError
from pipelines.models.pinned_files import check_digest, digest_of_pinned, is_torchscript, vouched_digest


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.ones(2)}, path)
    return path


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """An archive with the member that tells a program, under a name of tensors."""
    path = tmp_path / "program.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("program/constants.pkl", b"")
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_digest_is_that_of_the_bytes(weights: Path) -> None:
    assert digest_of_pinned(str(weights), "") == sha256(weights)
    assert digest_of_pinned(str(weights), sha256(weights)) == sha256(weights)


def test_another_file_than_the_one_named_is_refused(weights: Path) -> None:
    with pytest.raises(ModelError, match="is not the file that the config names") as raised:
        digest_of_pinned(str(weights), "0" * 64)
    assert raised.value.expected == "0" * 64
    check_digest(str(weights), "1" * 64, "")  # where none is named, any is right


@pytest.mark.parametrize(
    ("name", "said"), [("gone.pt", "No weights"), ("weights.onnx", "no kind of weights file")]
)
def test_what_is_no_file_of_weights_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "weights.onnx").write_bytes(b"x")
    with pytest.raises(ModelError, match=said):
        digest_of_pinned(str(tmp_path / name), "")
    assert digest_of_pinned(str(tmp_path / "weights.onnx"), "", suffixes=(".onnx",))


def test_a_program_is_told_by_what_is_in_it(weights: Path, program: Path, tmp_path: Path) -> None:
    assert is_torchscript(str(program))
    assert not is_torchscript(str(weights))
    (tmp_path / "plain.pt").write_bytes(b"no archive")
    assert not is_torchscript(str(tmp_path / "plain.pt"))


def test_a_program_is_read_where_somebody_vouches_for_it(weights: Path, program: Path) -> None:
    assert vouched_digest(str(weights), "") == sha256(weights)
    assert vouched_digest(str(program), sha256(program)) == sha256(program)
    with pytest.raises(ModelError, match=re.escape(f"{program} is a TorchScript archive")) as raised:
        vouched_digest(str(program), "")
    assert sha256(program) in str(raised.value.remedy)
