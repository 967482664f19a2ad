"""The checks for a GPU run, small, without one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.accept


def run_check(name: str, *arguments: str) -> dict[str, Any]:
    """The line of JSON that a check ends with."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(name)), "--device", "cpu", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_trainer() -> None:
    line = run_check("check_gpu.py", "--minutes", "0.05", "--arch", "vit_micro")
    assert line["faults"] == {}
    assert line["steps"] >= 30
    assert line["images_per_s"] > 0
    assert 0 <= line["data_wait"] <= 1
    assert line["last_loss"] < line["first_loss"]


def test_the_vector_half_of_curation() -> None:
    few = ("--num-rows", "3000", "--clusters", "50", "--images", "8", "--arch", "vit_micro")
    line = run_check("check_vectors.py", *few)
    assert line["edges_equal"]
    assert line["sums_equal"]
    assert all(line[name] > 0 for name in ("edges_of_roof", "kmeans_of_roof", "embedding_of_roof"))
