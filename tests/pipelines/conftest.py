"""A small web, drawn once a session, and a finished run over it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from curation import storage
from pipelines.config.read import apply_override
from pipelines.config.run_config import RunConfig, validate
from pipelines.demo.web import demo_config, draw_web
from pipelines.engine.progress import Progress
from pipelines.run import RunResult, run

Configure = Callable[..., RunConfig]


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 230 drawn files in three pools, some of them copies, leaks or broken."""
    root = tmp_path_factory.mktemp("web")
    draw_web(root, seed=1, num_images=60)
    return root


def small_config(web: Path, run_dir: Path, *overrides: str) -> dict[str, Any]:
    """A config over `web` with several parts a pool, on the local executor."""
    data = demo_config(web, run_dir)
    for override in (
        "ingest.part_rows=40",
        "shard.max_samples=30",
        "describe.decode_threads=1",
        "executor.kind=local",
        *overrides,
    ):
        apply_override(data, override)
    return data


@pytest.fixture(scope="session")
def configure(web: Path) -> Configure:
    """`configure(run_dir, "a.b=c", …, root=…)`: a config over the web, or a copy of it."""

    def make(run_dir: Path, *overrides: str, root: Path = web) -> RunConfig:
        return validate(small_config(root, run_dir, *overrides), where="the test's config")

    return make


@pytest.fixture(scope="session")
def config_file(web: Path) -> Callable[..., Path]:
    """`config_file(path, run_dir, "a.b=c", …)`: the same config as a YAML file."""

    def write(path: Path, run_dir: Path, *overrides: str) -> Path:
        path.write_text(yaml.safe_dump(small_config(web, run_dir, *overrides), sort_keys=False))
        return path

    return write


def quietly(config: RunConfig, *, until: str | None = None, refresh: bool = False) -> RunResult:
    """Run without a progress bar."""
    return run(config, until=until, refresh=refresh, progress=Progress(quiet=True))


@pytest.fixture(scope="session")
def run_quietly() -> Callable[..., RunResult]:
    return quietly


@pytest.fixture(scope="session")
def finished(configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of an undisturbed run on the local executor. To be read only."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    result = quietly(configure(run_dir))
    assert result.exit_code == 0
    return run_dir


@pytest.fixture
def damageable(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may spoil."""
    copy = tmp_path / "damageable"
    shutil.copytree(finished, copy)
    return copy


def output_digests(run_dir: Path) -> dict[str, str]:
    """SHA-256 of everything in the dataset but the report, which shows timings."""
    [folder] = run_dir.glob("dataset-*")
    return {
        info.key: storage.sha256_file(info.path)[0]
        for info in storage.list_files(str(folder))
        if not info.key.endswith(".html")
    }


@pytest.fixture(scope="session")
def digests() -> Callable[[Path], dict[str, str]]:
    return output_digests


def read_rows(run_dir: Path, kind: str) -> pa.Table:
    """All of `lineage` or `selection`."""
    [folder] = run_dir.glob("dataset-*")
    return pa.concat_tables([storage.read_table(str(path)) for path in sorted((folder / kind).iterdir())])


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Path, str], pa.Table]:
    return read_rows
