"""Two processes under torchrun, of which one, or torchrun itself, is killed."""

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from drawn_dataset import write_drawn
from tiny import tiny_config

from pretrain.checkpoint_files import step_dir
from pretrain.metrics import read_metrics

pytestmark = pytest.mark.accept

HERE = Path(__file__).parent
STEPS = 40
PROGRAM = f"""
import sys
sys.path[:0] = [{str(HERE)!r}, {str(HERE.parents[1])!r}]
from pathlib import Path
from rank_jobs import train_job
from pretrain.config import PretrainConfig

if __name__ == "__main__":
    text = train_job(PretrainConfig.model_validate_json(Path(sys.argv[1]).read_text()), sys.argv[2])
    raise SystemExit(143 if text.startswith("StoppedError") else 0)
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drawn(tmp_path_factory.mktemp("torchrun") / "run")


def start(folder: Path, dataset: Path) -> tuple[subprocess.Popen[bytes], str]:
    """torchrun, in a session of its own, and the mark in the environment of all that it starts."""
    config = tiny_config(
        run_dir=str(folder / "run"),
        data={"path": str(dataset), "workers": 1},
        model={"drop_path": 0.3},
        checkpoint={"every": 5},
        schedule={"iterations": STEPS},
    )
    (folder / "config.json").write_text(config.model_dump_json())
    (folder / "program.py").write_text(PROGRAM)
    mark = uuid.uuid4().hex
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [folder / "program.py", folder / "config.json", folder / "notes"]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *command, *arguments],
            env=os.environ | {"OMP_NUM_THREADS": "1", "LVD_TEST_MARK": mark},
            start_new_session=True,
            stdout=log,
            stderr=log,
        )
    return process, mark


def marked(mark: str) -> dict[int, str]:
    """Live processes with the mark in their environment: number and command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_bytes().decode().replace("\0", " ")
        except OSError:
            continue
    return found


def wait_until_gone(mark: str, timeout_s: float = 120.0) -> None:
    end = time.monotonic() + timeout_s
    while (left := marked(mark)) and time.monotonic() < end:
        time.sleep(0.1)
    for number in left:
        os.kill(number, signal.SIGKILL)
    assert not left, f"left behind: {left}"


def steps_of(folder: Path) -> int:
    lines = read_metrics(folder / "run")
    return lines[-1]["step"] if lines else 0


@pytest.fixture(scope="module")
def undisturbed(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    process, mark = start(folder, dataset)
    assert process.wait(600) == 0
    wait_until_gone(mark)
    return folder


@pytest.mark.parametrize("victim", ["rank", "torchrun"])
def test_killed_and_resumed_gives_the_same_bits(
    victim: str, dataset: Path, undisturbed: Path, tmp_path: Path
) -> None:
    process, mark = start(tmp_path, dataset)
    try:
        end = time.monotonic() + 300
        while steps_of(tmp_path) < 12:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.01)
        ranks = [
            n for n, text in marked(mark).items() if "program.py" in text and "distributed.run" not in text
        ]
        assert len(ranks) == 2
        os.kill(ranks[0] if victim == "rank" else process.pid, signal.SIGKILL)
        assert process.wait(120) != 0
    finally:
        process.kill()
        wait_until_gone(mark)
    assert 12 <= steps_of(tmp_path) < STEPS
    process, mark = start(tmp_path, dataset)
    assert process.wait(600) == 0
    wait_until_gone(mark)
    a, b = (step_dir(folder / "run", STEPS) for folder in (tmp_path, undisturbed))
    for name in ("teacher.safetensors", "student.safetensors", "training.safetensors"):
        assert (a / name).read_bytes() == (b / name).read_bytes()
    losses = [[(x["step"], x["loss"]) for x in read_metrics(f / "run")] for f in (tmp_path, undisturbed)]
    assert losses[0] == losses[1]
