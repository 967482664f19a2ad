"""The check for a GPU runs, small, without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.accept
def test_the_small_form() -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("check_gpu.py")),
            *("--device", "cpu", "--minutes", "0.05", "--arch", "vit_micro"),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["faults"] == {}
    assert line["steps"] >= 30
    assert line["images_per_s"] > 0
    assert 0 <= line["data_wait"] <= 1
    assert line["last_loss"] < line["first_loss"]
