"""Without Ray, and without what an extra brings, everything else works, and what does not says so."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

SCRIPT = """
import contextlib, io, json, sys
for name in ("ray", "aiohttp", "yarl", "fastwarc", "cv2", "datasets", "s3fs"):
    sys.modules[name] = None  # to import it raises ImportError from now on
from pipelines.cli.main import main

config, run_dir, key = sys.argv[1:]
answers = []
for arguments in (
    ["run", config, "--executor", "ray"],
    ["plan", config, "--no-probe"],
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


def test_everything_else_works_without_ray_and_extras(
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
