"""Every benchmark can be started from anywhere, as its docstring says."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).resolve().parents[1] / "benchmarks").glob("*.py"))
LOAD = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='loaded')"


@pytest.mark.accept
@pytest.mark.parametrize("script", BENCHMARKS, ids=lambda script: script.stem)
def test_imports_are_there(script: Path, tmp_path: Path) -> None:
    # As `python SCRIPT` does, the script's own folder stands first on the path, and the root does not.
    code = f"import sys; sys.path[0] = {str(script.parent)!r}; {LOAD}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
