"""A dry run and a first word wait for no science: nothing that takes seconds to import comes before them."""

import os
import resource
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


# Whoever asks for torch ends the process: what was said by then, was said before.
PRETRAIN = """
import sys

class Torch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise SystemExit(77)

sys.meta_path.insert(0, Torch())
from pipelines.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def first_words(*arguments: str, cwd: Path, command: str = "pretrain") -> tuple[int, str]:
    """The exit code and what stands on stderr, of a training up to torch; it takes two CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", PRETRAIN, command, *arguments],
        capture_output=True, text=True, check=False, timeout=60, cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    return done.returncode, done.stderr


def test_a_training_says_its_first_word_before_torch(finished: Path, tmp_path: Path) -> None:
    code, said = first_words("tiny_cpu.yaml", "--set", f"data.path={finished}", cwd=tmp_path)
    assert code == 77
    assert said.startswith(f"lvd: reading {finished} (")
    assert said.endswith(" shards); writing runs/tiny_cpu\n")
    assert not (tmp_path / "runs").exists()
    mix = f"data.mix=[{{path: {finished}}}, {{path: '/x/{{00..09}}.tar'}}, {{path: 's3://a:b@bucket/x'}}]"
    code, said = first_words("tiny_cpu.yaml", "--set", mix, cwd=tmp_path)
    assert code == 77
    assert "shards), /x/{00..09}.tar, s3://***@bucket/x; writing runs/tiny_cpu\n" in said
    for command in ("distill", "chain"):
        config = f"{command}_tiny_cpu.yaml"
        code, said = first_words(config, "--set", f"data.path={finished}", cwd=tmp_path, command=command)
        assert code == 77
        assert said.startswith(f"lvd: reading {finished} (")
        assert said.endswith(f" shards); writing runs/{command}_tiny_cpu\n")
        code, said = first_words(config, "--set", "data.path=nowhere", cwd=tmp_path, command=command)
        assert (code, said[:33]) == (1, "lvd: There is no dataset at nowhe")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("nowhere.yaml", 2, "lvd: No config can be read at nowhere.yaml."),
        ("tiny_cpu.yaml", 2, "tiny_cpu.yaml: data.path is missing."),
        ("tiny_cpu.yaml --set data.path=nowhere", 1, "lvd: There is no dataset at nowhere."),
        ("tiny_cpu.yaml --set data.path=damaged", 1, "lvd: damaged/manifest.json is no manifest."),
        ("tiny_cpu.yaml --set data.path=x --set run_dir=file/run", 2, "run_dir cannot be written: file/run."),
        ("empty", 2, "lvd: No training has begun in empty."),
        ("own.yaml", 1, "lvd: There is no dataset at runs/mine."),
    ],
)
def test_a_mistake_in_a_path_is_told_before_torch(
    arguments: str, code: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.json").write_text("[]")
    (tmp_path / "empty").mkdir()
    (tmp_path / "own.yaml").write_text("name: mine\npools: {}\npretrain: {batch_images: 2}\n")
    got, told = first_words(*arguments.split(), cwd=tmp_path)
    assert said in told
    assert got == code
