"""A part of Ray dies: the run ends soon, with a word and no process left, and is resumed to the byte."""

import time
from pathlib import Path

import pytest
import yaml
from faults.processes import is_gcs, is_raylet, kill_marked
from lvd_process import run_lvd, start_lvd
from outcome import Outcome

from pipelines.demo.web import demo_config, draw_web

pytestmark = [pytest.mark.accept, pytest.mark.ray]

END_S = 60
VICTIMS = {"raylet": is_raylet, "gcs": is_gcs}
WORDS = {"raylet": "its node on this machine has ended", "gcs": "its head does not answer"}


@pytest.fixture(scope="module")
def small_web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config over some 500 files in parts of 25; it names no run directory."""
    root = tmp_path_factory.mktemp("small-web")
    draw_web(root / "web", seed=7, num_images=300)
    config = demo_config(root / "web", root)
    del config["run_dir"]
    path = root / "web.yaml"
    path.write_text(yaml.safe_dump(config | {"ingest": {"part_rows": 25}}, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def undisturbed(small_web: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    run_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    run_lvd(command(small_web, run_dir, "local"), log=run_dir.with_name("log"))
    return Outcome(run_dir).digests()


def command(config: Path, run_dir: Path, executor: str) -> list[str]:
    return ["run", str(config), f"--set=run_dir={run_dir}", f"--executor={executor}"]


@pytest.mark.parametrize("victim", ["raylet", "gcs"])
def test_a_part_of_ray_that_dies_ends_the_run_with_a_word(
    victim: str, small_web: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    lvd = start_lvd(command(small_web, run_dir, "ray"), log=tmp_path / "log")
    end = time.monotonic() + 600
    while len(list((run_dir / "steps").glob("describe/*/receipt.json"))) < 2:
        assert lvd.process.poll() is None, lvd.text()
        assert time.monotonic() < end, lvd.text()
        time.sleep(0.05)
    assert kill_marked(lvd.mark, VICTIMS[victim])
    killed = time.monotonic()
    assert lvd.wait(END_S) == 1, lvd.text()
    print(f"it ended after {time.monotonic() - killed:.0f} s")
    assert not lvd.orphans(timeout_s=END_S - (time.monotonic() - killed))
    said = lvd.text()
    assert said.count("lvd: The Ray cluster is lost") == 1, said
    assert WORDS[victim] in said
    assert "Traceback" not in said
    run_lvd(command(small_web, run_dir, "local"), log=tmp_path / "log")
    assert Outcome(run_dir).digests() == undisturbed
