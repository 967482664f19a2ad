"""A small finished run with one of everything that a report shows."""

from pathlib import Path
from typing import Any

import pytest
from report_runs import HOSTILE, MakeRun, jpeg, write_pool

from pipelines.config.run_config import validate
from pipelines.engine.progress import Progress
from pipelines.run import run


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    """Runs a config on pools of files: `make_run(folder, {pool: (role, files)}, more)` gives the RUN_DIR."""

    def make(folder: Path, pools: dict[str, tuple[str, dict[str, bytes]]], **more: Any) -> Path:
        sources = {
            name: {"role": role, **write_pool(folder / "pools" / str(i), files)}
            for i, (name, (role, files)) in enumerate(pools.items())
        }
        config = {"name": "small", "run_dir": str(folder / "run"), "pools": sources, "seed": 3, **more}
        config["executor"] = {"kind": "local", "threads": 1}
        run(validate(config, where="a test"), progress=Progress(quiet=True))
        return folder / "run"

    return make


@pytest.fixture(scope="session")
def rich_run(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies, leaks, broken files, retrieved images, several parts, hostile names."""
    web = {f"web-{i:02d}.jpg": jpeg(100 + i) for i in range(20)}
    web |= {name: jpeg(200 + i) for i, name in enumerate(HOSTILE)}
    web |= {f"again {name}": jpeg(200 + i, 60) for i, name in enumerate(HOSTILE)}
    web |= {"exact.jpg": jpeg(101), "near-1.jpg": jpeg(102, 50), "near-2.jpg": jpeg(102, 70)}
    web |= {
        "leak.jpg": jpeg(300, 55),
        "<b>empty.jpg": b"",
        "<i>cut.jpg": jpeg(400)[:700],
        "page.jpg": b"<html>",
    }
    pools = {
        "trusted": ("curated", {f"good-{i}.jpg": jpeg(i) for i in range(6)}),
        "web <u>": ("uncurated", web),
        "exam": ("holdout", {f"exam-{i}.jpg": jpeg(300 + i) for i in range(4)}),
    }
    folder = tmp_path_factory.mktemp("rich")
    return make_run(folder, pools, ingest={"part_rows": 16}, select={"max_images": 12})
