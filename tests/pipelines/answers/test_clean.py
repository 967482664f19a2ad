"""Intermediate data may go, and the dataset stays whole."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from curation.errors import LockedError
from pipelines.answers.clean import clean, find_leftovers
from pipelines.answers.verify import verify
from pipelines.cli.main import main
from pipelines.engine.lock import lock


def test_nothing_goes_without_consent(damageable: Path) -> None:
    before = sorted(path for path in damageable.rglob("*"))
    assert main(["clean", str(damageable)]) == 0
    assert sorted(path for path in damageable.rglob("*")) == before


def test_everything_still_works_behind_it(
    *,
    damageable: Path,
    finished: Path,
    configure: Any,
    run_quietly: Any,
    digests: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["clean", str(damageable), "--yes"]) == 0
    assert not list(damageable.glob("steps/*/*/*"))
    assert verify(str(damageable)) == []
    assert digests(damageable) == digests(finished)
    capsys.readouterr()
    assert main(["status", str(damageable), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["complete"]
    assert [state["num_done"] for state in status["steps"]] == [0]
    assert main(["plan", str(damageable / "run.yaml"), "--set", f"run_dir={damageable}"]) == 0
    assert main(["explain", str(damageable), "trusted", "--json"]) == 2
    assert run_quietly(configure(damageable)).exit_code == 0  # made anew, the same
    assert digests(damageable) == digests(finished)


def test_what_the_current_config_uses_can_stay(
    damageable: Path, configure: Any, run_quietly: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_leftovers(str(damageable), keep_current=True) == []
    run_quietly(configure(damageable, "judge.min_side_px=2"))
    leftovers = find_leftovers(str(damageable), keep_current=True)
    assert {folder.path.split("/")[0].split("-")[0] for folder in leftovers} == {"steps", "dataset"}
    assert not [folder for folder in leftovers if folder.path.startswith(("steps/ingest", "steps/describe"))]
    assert clean(str(damageable), keep_current=True) == leftovers
    assert find_leftovers(str(damageable), keep_current=True) == []
    monkeypatch.setattr(
        "pipelines.engine.runner.Runner._do", lambda *_: pytest.fail("nothing was to be done")
    )
    assert run_quietly(configure(damageable, "judge.min_side_px=2")).exit_code == 0


def test_never_under_a_running_run(damageable: Path) -> None:
    with lock(str(damageable)), pytest.raises(LockedError):
        clean(str(damageable), keep_current=False)
    assert list(damageable.glob("steps/describe/*"))


def test_a_removed_step_is_done_again(
    damageable: Path, finished: Path, configure: Any, run_quietly: Any, digests: Any
) -> None:
    for name in ("describe", "cluster", "shard"):
        [folder, *_] = [path for path in (damageable / "steps" / name).iterdir() if path.name != "markers"]
        shutil.rmtree(folder)
    [dataset] = damageable.glob("dataset-*")
    shutil.rmtree(dataset)
    assert run_quietly(configure(damageable)).exit_code == 0
    assert digests(damageable) == digests(finished)


def test_what_has_two_links_that_both_go_is_freed_once(
    damageable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def freed() -> int:
        return sum(folder.num_bytes for folder in find_leftovers(str(damageable), keep_current=False))

    before = freed()
    old, step = damageable / f"dataset-{'0' * 32}", damageable / "steps" / "shard" / ("f" * 32)
    for folder in (old, step):
        folder.mkdir()
    (old / "a.tar").write_bytes(bytes(1000))
    (step / "a.tar").hardlink_to(old / "a.tar")
    assert freed() == before + 1000
    (damageable / "elsewhere").hardlink_to(old / "a.tar")
    assert freed() == before
    assert main(["clean", str(damageable)]) == 0
    assert f"  {old.name}  (a dataset of an earlier config)\n" in capsys.readouterr().out
