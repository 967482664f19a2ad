"""Without Ray installed everything works but the executor of that name, and that one says so."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

SCRIPT = """
import contextlib, io, json, sys
sys.modules["ray"] = None  # `import ray` raises ImportError from now on
from pipelines.cli import main

config, run_dir, key = sys.argv[1:]
answers = []
for arguments in (
    ["run", config, "--executor", "ray"],
    ["plan", config],
    ["run", config, "--executor", "local"],
    ["status", run_dir],
    ["explain", run_dir, key],
    ["verify", run_dir],
):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    answers.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(answers))
"""


def test_everything_but_ray_works_without_ray(
    tmp_path: Path, config_file: Callable[..., Path], web: Path
) -> None:
    config = config_file(tmp_path / "c.yaml", tmp_path / "run", "executor.kind=ray")
    key = next(p for p in (web / "curated").rglob("*.jpg")).relative_to(web / "curated")
    command = [sys.executable, "-c", SCRIPT, str(config), str(tmp_path / "run"), str(key)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    refused, *others = json.loads(done.stdout)
    assert refused[0] == 2
    assert "The executor `ray` needs Ray" in refused[2]
    assert "--executor local" in refused[2]
    assert [code for code, _, _ in others] == [0] * 5
    assert "every hash, count and row is right" in others[-1][1]
