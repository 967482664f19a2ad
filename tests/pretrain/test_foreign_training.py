"""Trainings on other people's tars, on streams and on mixtures: they learn, and stop and go on as is said."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_tars import serving, write_webdataset
from safetensors.torch import load_file
from tiny import tiny_config

from curation.errors import ConfigError, StoppedError
from pretrain import loop
from pretrain.config import PretrainConfig
from pretrain.data.loader import CropBatch
from pretrain.metrics import read_metrics
from pretrain.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


def training(run_dir: Path, **data: Any) -> PretrainConfig:
    return tiny_config(run_dir=str(run_dir), data=data, schedule={"iterations": 6})


def student_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "student.safetensors")


def stop_before(step: int, monkeypatch: pytest.MonkeyPatch, seen: list[list[int]] | None = None) -> None:
    """Ask the next training to stop when it gets the batch of a step; -1: never."""
    real = loop.load_batches

    def stopping(source: Any, state: Any, **rest: Any) -> Iterator[CropBatch]:
        for batch in real(source, state, **rest):
            if seen is not None:
                seen.append(batch.rows.tolist())
            if batch.step == step:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    monkeypatch.setattr(loop, "load_batches", stopping)


def is_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", ["tars", "mix"])
def test_resumed_is_uninterrupted(
    kind: str, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_webdataset(tmp_path / "data")
    path = f"{tmp_path}/data/in-{{000000..000002}}.tar"
    mix = [{"path": path, "weight": 0.4}, {"path": str(drawn), "weight": 0.6}]
    data = {"path": path} if kind == "tars" else {"mix": mix}
    rows: list[list[int]] = []
    with monkeypatch.context() as patched:
        stop_before(-1, patched, rows)
        whole = student_of(train(training(tmp_path / "whole", **data), quiet=True))
    assert len(rows) == 6
    if kind == "mix":
        assert {row < 20 for row in rows[0]} == {True, False}
    again: list[list[int]] = []
    with monkeypatch.context() as patched:
        stop_before(2, patched, again)
        with pytest.raises(StoppedError):
            train(training(tmp_path / "stopped", **data), quiet=True)
    with monkeypatch.context() as patched:
        stop_before(-1, patched, again)
        resumed = student_of(train(training(tmp_path / "stopped", **data), quiet=True))
    assert again == rows
    assert is_same(resumed, whole)


def test_other_weights_are_another_training(drawn: Path, tmp_path: Path) -> None:
    write_webdataset(tmp_path / "data")
    mix: list[dict[str, Any]] = [{"path": f"{tmp_path}/data/*.tar"}, {"path": str(drawn)}]
    run_dir = tmp_path / "run"
    train(training(run_dir, mix=mix), quiet=True)
    mix[0]["weight"] = 2
    with pytest.raises(ConfigError, match=r"data\.sha256"):
        train(training(run_dir, mix=mix), quiet=True)


def test_a_stream_trains_and_says_that_it_resumes_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_webdataset(tmp_path / "data")
    with serving(tmp_path / "data") as server:
        config = training(tmp_path / "run", path=f"{server.url}/in-{{000000..000002}}.tar", buffer_images=8)
        said: list[Any] = []
        with monkeypatch.context() as patched:
            stop_before(2, patched)
            with pytest.raises(StoppedError):
                train(config)
            said.append(capfd.readouterr())
        train(config)
        said.append(capfd.readouterr())
    for out in said:  # at the start, and at the resume
        assert (out.out + out.err).count("a stopped training goes on with other images") == 1
    records = [record for record in read_metrics(tmp_path / "run") if "loss" in record]
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    assert not any(record["skipped"] or record["unreadable"] for record in records)
    assert records[-1]["images_seen"] == 48


def test_too_few_images_are_refused_before_anything_is_built(tmp_path: Path) -> None:
    write_webdataset(tmp_path / "data", sizes=(5,))
    with pytest.raises(ConfigError, match=r"5 images for 8 in a batch.*allow_repeats"):
        train(training(tmp_path / "run", path=f"{tmp_path}/data/*.tar"), quiet=True)
    train(training(tmp_path / "run", path=f"{tmp_path}/data/*.tar", allow_repeats=True), quiet=True)
