"""Labelled files as they are read: what is swapped after it was listed neither hangs nor fills the memory."""

import os
from pathlib import Path

import pytest

from pretrain.evaluate.labelled import read_file


def test_a_file_is_regular_and_bounded(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x" * 1000)
    assert read_file(str(tmp_path / "a.jpg")) == b"x" * 1000
    os.mkfifo(tmp_path / "pipe.jpg")
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(1 << 40)
    for path, said in (
        (tmp_path / "pipe.jpg", "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path / "large.jpg", "more than 50,000,000 bytes"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(OSError, match=said):
            read_file(str(path))
