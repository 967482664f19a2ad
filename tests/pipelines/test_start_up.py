"""A dry run waits for no science: what it imports brings neither torch nor what else takes seconds."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "scipy", "faiss", "ray", "timm", "open_clip")
SCRIPT = f"""
import sys
from pipelines.cli.main import main

code = main(sys.argv[1:])
print(code, *set({HEAVY}) & sys.modules.keys(), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "module",
    ["pipelines.lvd", "pipelines.models.preflight", "pipelines.report.write", "pipelines.answers.what_if"],
)
def test_the_flow_and_who_asks_it_import_no_science(module: str) -> None:
    code = f"import sys, {module}; print(*set({HEAVY}) & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert not done.stdout.split()


@pytest.mark.parametrize("command", ["status", "report", "verify", "clean", "clean --keep-current"])
def test_what_is_asked_of_a_run_is_answered_without_it(command: str, finished: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    name, *flags = command.split()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name, str(run_dir), *flags],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stderr.split() == ["0"]


RESOLVE = """
import sys
from curation.describe.describe import DescribeConfig
from curation.describe.embed import EmbedConfig
from pipelines.models.identity import heads_identity, identity, resolve

for embedder in ("gist", "precomputed:vectors.parquet"):
    resolve(EmbedConfig(embedder=embedder))
identity(EmbedConfig(embedder="gist"), threads=1)
given = EmbedConfig(embedder="timm:resnet50", device="cpu", dtype="fp32", compile=False)
assert resolve(given) == given
heads_identity(DescribeConfig())
print("torch" in sys.modules)
resolve(EmbedConfig(embedder="timm:resnet50"))
print("torch" in sys.modules)
"""


def test_a_model_without_a_forward_is_resolved_without_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["False", "True"]
