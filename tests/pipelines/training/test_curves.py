"""The picture of a training."""

import json
from pathlib import Path

import numpy as np
import pytest
from faults.disks import file_size_limit
from PIL import Image

from curation.errors import ConfigError, ExecutorError
from pipelines.cli.main import main
from pipelines.training.curves import running_mean
from pretrain.metrics import MetricsLog, read_metrics


def a_step(step: int) -> dict[str, object]:
    anchored = ("gram",) if step > 2 else ()  # a term that comes in later
    terms = dict.fromkeys(("dino_local", "dino_global", "ibot", "koleo", *anchored), 1.0 / step)
    norms = {"grad_norm_backbone": 2.0, "grad_norm_dino_head": 1.0}
    return {
        "step": step,
        "loss": float("nan") if step == 3 else 4.0 / step,
        **terms,
        **norms,
        "images_per_s": 9.0,
        "data_wait": 0.1,
        "skipped": step == 3,
    }


def test_running_mean_by_hand() -> None:
    got = running_mean(np.array([1.0, 3.0, np.nan, 5.0, 7.0]), 2)
    assert got.tolist() == [1.0, 2.0, 3.0, 5.0, 6.0]


@pytest.mark.parametrize("with_probe", [True, False])
def test_a_training_becomes_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], with_probe: bool
) -> None:
    log = MetricsLog(tmp_path, first_step=0, warn=print)
    for step in range(1, 9):
        log.write(a_step(step))
        if with_probe and step % 4 == 0:
            log.write({"step": step, "knn_10": 0.5, "knn_20": 0.4, "rank_me": 3.0})
    assert main(["report", str(tmp_path)]) == 0
    path = capsys.readouterr().out.strip()
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    # Six panels, or, where nothing was measured, the four that have something to show.
    assert pixels.shape[1] == round((3 if with_probe else 2) * 4.6 * 110)
    assert pixels.shape[0] > 400
    assert (pixels != 255).any(axis=2).mean() > 0.02  # something was drawn


def test_a_training_without_a_step_is_an_error(tmp_path: Path) -> None:
    MetricsLog(tmp_path, first_step=0, warn=print)
    assert main(["report", str(tmp_path)]) == ConfigError.exit_code


@pytest.mark.parametrize(
    "damage",
    [
        '"loss": "x"',
        '"loss": [1]',
        '"loss": NaN',
        '"loss": 1e999',
        f'"step": {"9" * 400}',
        '"dino_local": {}',
        '"step": -1',
        '"step": true',
        '"rank_me": "x"',
        f'"loss": {"9" * 400}',
        '"skipped": [1]',
    ],
)
def test_a_line_that_no_training_writes_is_left_out(tmp_path: Path, damage: str) -> None:
    log = MetricsLog(tmp_path, first_step=0, warn=print)
    for step in range(1, 5):
        log.write(a_step(step))
    with (tmp_path / "metrics.jsonl").open("a") as out:
        out.write(json.dumps(a_step(5))[:-1] + f", {damage}}}\n")
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert main(["report", str(tmp_path)]) == 0


def test_a_line_that_lacks_some_numbers_is_drawn_without_them(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, first_step=0, warn=print)
    log.write(a_step(1))
    log.write({"step": 2, "loss": 1.0})
    log.write({"step": 2, "rank_me": float("nan"), "knn_10": None})
    assert main(["report", str(tmp_path)]) == 0


def test_a_full_disk_leaves_the_picture_that_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = MetricsLog(tmp_path, first_step=0, warn=print)
    log.write(a_step(1))
    assert main(["report", str(tmp_path)]) == 0
    before = (tmp_path / "curves.png").read_bytes()
    log.write(a_step(2))
    with file_size_limit(10_000):
        assert main(["report", str(tmp_path)]) == ExecutorError.exit_code
    assert "curves.png" in capsys.readouterr().err
    assert (tmp_path / "curves.png").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "metrics.jsonl"}
