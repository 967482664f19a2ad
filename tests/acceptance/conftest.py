"""What the acceptance tests share: sources to curate, drawn or photographed, with known truth."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from planted import plant
from s3_server import s3, s3_endpoint  # noqa: F401 — fixtures

from pipelines.demo.web import demo_config, draw_web


@dataclass(frozen=True)
class Photographs:
    """Real photographs, and copies planted among them."""

    real: Path
    planted: Path
    truth: pa.Table


@pytest.fixture(scope="session")
def photographs(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    """The photographs, and 1,500 copies of them."""
    out = tmp_path_factory.mktemp("photographs")
    return Photographs(shared_dir / "real", out, plant(shared_dir / "real", out, num=1500, seed=0))


@pytest.fixture(scope="session")
def web_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config over a small drawn web: folders and tars, sidecars, copies, leaks, broken files; 50 parts.

    It names no run directory; `--set run_dir=` does.
    """
    root = tmp_path_factory.mktemp("web")
    draw_web(root / "web", seed=7, num_images=2_000)
    config = demo_config(root / "web", root)
    del config["run_dir"]
    config |= {"ingest": {"part_rows": 50}, "shard": {"max_samples": 100, "bucket_bytes": 1_000_000}}
    path = root / "web.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path
