"""Measures beside the start, and a verdict: by hand, and in a training that goes on with trained weights."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_config

from pretrain import loop
from pretrain.checkpoint_files import read_facts, step_dir
from pretrain.config import PretrainConfig
from pretrain.evaluate.guard import VERDICT, Verdict, judge, shown
from pretrain.metrics import read_metrics
from pretrain.train import train
from pretrain.train_step import State, StepOutcome

BEGAN = {"knn_10": 0.9, "knn_20": 0.5, "rank_me": 40.0}


def judged(**now: float) -> Verdict:
    found = judge({**BEGAN, **now}, BEGAN, num_test=100, step=7)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        ({"knn_20": 0.65}, "better"),
        ({"knn_20": 0.63}, "no better"),
        ({"knn_20": 0.37}, "no better"),
        ({"knn_20": 0.35}, "worse"),
        ({"knn_10": 0.1}, "no better"),  # the most neighbours are what is judged by
        ({"rank_me": 1.5, "knn_20": 0.9}, "worse"),  # collapsed
    ],
)
def test_verdicts(now: dict[str, float], verdict: str) -> None:
    """Two binomial errors of a difference at 0.5 and about 0.5, of 100 images: about 0.14."""
    assert judged(**now).verdict == verdict


def test_noise_by_hand() -> None:
    found = judged(knn_20=0.8)
    assert found.judged_by == "knn_20"
    assert found.noise == pytest.approx(2 * math.sqrt((0.25 + 0.16) / 100))
    assert found.sentence() == (
        "verdict: better than where it began: knn_20 0.800 (0.500 at the start); knn_10 0.900 (0.900 at the "
        "start); rank_me 40.000 (40.000 at the start); on 100 images a difference of 0.128 in knn_20 is noise"
    )
    assert "its features have collapsed" in judged(rank_me=1.0).sentence()
    assert judge({"knn_5": 0.5, "rank_me": 9.0}, BEGAN, num_test=100, step=7) is None


def test_a_look_beside_the_start() -> None:
    assert shown({"knn_20": 0.71}, {"knn_20": 0.68}) == "knn_20 0.710 (0.680 at the start)"
    assert shown({"knn_20": 0.71}, None) == "knn_20 0.710"


def write_labelled(root: Path) -> dict[str, Any]:
    """Two classes of pictures in a train and a test folder."""
    rng = np.random.default_rng(0)
    for part, num in (("train", 6), ("test", 5)):
        for name, level in (("dark", 40), ("light", 200)):
            (root / part / name).mkdir(parents=True)
            for number in range(num):
                levels = np.clip(rng.normal(level, 60, (40, 40, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(levels).save(root / part / name / f"{number}.png")
    return {"train": str(root / "train"), "test": str(root / "test"), "every": 2, "neighbours": [1, 3]}


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_labelled(tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="module")
def trained(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("guard") / "trained"
    train(going_on(drawn, run_dir, schedule={"iterations": 2}), quiet=True)
    return run_dir


def going_on(dataset: Path, run_dir: Path, **change: Any) -> PretrainConfig:
    base = {
        "run_dir": str(run_dir),
        "data": {"path": str(dataset), "workers": 0},
        "checkpoint": {"every": 2, "keep": 9},
        "schedule": {"iterations": 5, "freeze_backbone": 2, **change.pop("schedule", {})},
    }
    return tiny_config(**base, **change)


def broken_off(config: PretrainConfig, *, at: int) -> None:
    """Train until an error in the step after `at`."""
    step = loop.train_step

    def breaking(state: State, *rest: Any, **options: Any) -> StepOutcome:
        if state.step == at:
            raise InterruptedError
        return step(state, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", breaking)
        with pytest.raises(InterruptedError):
            train(config, quiet=True)


def test_a_domain_is_gone_on_with_and_judged(
    drawn: Path, trained: Path, probe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Broken off, it knows from its checkpoint where it began: what is written is the same."""
    change = {"model": {"weights": str(trained)}, "probe": probe}
    train(going_on(drawn, tmp_path / "whole", **change))
    told = capsys.readouterr().err
    looks = [line for line in read_metrics(tmp_path / "whole") if "rank_me" in line]
    assert [look["step"] for look in looks] == [0, 2, 4, 5]
    # Frozen so far, and judged by the teacher: what was measured at the start is measured again.
    assert {**looks[1], "step": 0} == looks[0]
    assert f"step 4: knn_1 {looks[2]['knn_1']:.3f} ({looks[0]['knn_1']:.3f} at the start)" in told
    written = json.loads((tmp_path / "whole" / VERDICT).read_text())
    assert written["start"] == {name: looks[0][name] for name in ("knn_1", "knn_3", "rank_me")}
    assert written["now"] == {name: looks[-1][name] for name in ("knn_1", "knn_3", "rank_me")}
    assert (written["step"], written["num_test"], written["judged_by"]) == (5, 10, "knn_3")
    assert written["sentence"] in told
    facts = read_facts(step_dir(tmp_path / "whole", 4))
    assert facts["measured_at_start"]["measures"] == written["start"]

    again = going_on(drawn, tmp_path / "again", **change)
    broken_off(again, at=3)
    train(again, quiet=True)
    assert (tmp_path / "again" / VERDICT).read_bytes() == (tmp_path / "whole" / VERDICT).read_bytes()


def test_another_probe_is_not_compared_with(
    drawn: Path, trained: Path, probe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The probe may change while a training is stopped."""
    change = {"start": {"checkpoint": str(trained)}, "schedule": {"iterations": 5}}
    broken_off(going_on(drawn, tmp_path, probe=probe, **change), at=4)
    train(going_on(drawn, tmp_path, probe={**probe, "size_px": 24}, **change))
    assert "at the start" not in capsys.readouterr().err
    assert not (tmp_path / VERDICT).exists()


def test_what_began_at_random_is_not_judged(
    drawn: Path, probe: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(going_on(drawn, tmp_path, schedule={"iterations": 2}, probe=probe))
    assert "at the start" not in capsys.readouterr().err
    assert not (tmp_path / VERDICT).exists()
