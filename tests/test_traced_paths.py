"""The three paths of docs/architecture.md are those of a run: each file is entered after the one before."""

import inspect
import io
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from pipelines.config.run_config import load_config
from pipelines.engine.progress import Progress
from pipelines.run import run

REPO = Path(__file__).resolve().parents[1]
PAGE = (REPO / "docs/architecture.md").read_text(encoding="utf-8")
PATHS = PAGE[PAGE.index("## Three paths") : PAGE.index("## Add a source")].split("\n### ")[1:]
ROW = re.compile(r"^\| `(\S+\.py)` \| ([^|]+) \|", re.MULTILINE)
CONFIGS = {"ParquetSource"}  # what a config is made of, which has no code of its own
SIDE_PX = 160

Entered = dict[tuple[str, str], int]  # file and qualified name → when a function was first called


@contextmanager
def recording() -> Iterator[Entered]:
    """Note each function of ours that is called, in every thread."""
    found: Entered = {}

    def note(frame: FrameType, event: str, _arg: object) -> None:
        code = frame.f_code
        # Bodies of classes and modules are no functions: they run when they are imported.
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED:
            found.setdefault((code.co_filename, code.co_qualname), len(found))

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


def jpeg(seed: int, quality: int) -> bytes:
    """A picture drawn by lot; of one seed those of two qualities are copies."""
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 12, 3), dtype=np.uint8)
    stream = io.BytesIO()
    picture = Image.fromarray(coarse).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    picture.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


@pytest.fixture(scope="module")
def entered(tmp_path_factory: pytest.TempPathFactory) -> Entered:
    """A run on a Parquet file in which one picture is a copy of another by its descriptor."""
    folder = tmp_path_factory.mktemp("traced")
    pictures = [*(jpeg(seed, 92) for seed in range(6)), jpeg(0, 60)]
    pq.write_table(pa.table({"image": pa.array(pictures, pa.binary())}), folder / "a.parquet")
    config = {
        "name": "traced",
        "run_dir": str(folder / "run"),
        "pools": {
            "web": {"role": "uncurated", "sources": [{"kind": "parquet", "path": str(folder / "a.parquet")}]}
        },
        "describe": {"descriptor": "gist"},
        "dedup": {"phash_radius": None, "cosine_threshold": 0.5, "edge_floor": 0.4},
        "executor": {"kind": "local", "threads": 1},
    }
    (folder / "a.yaml").write_text(yaml.safe_dump(config))
    with recording() as found:
        loaded = load_config(str(folder / "a.yaml"), ["dedup.cosine_threshold=0.92"])
        result = run(loaded, progress=Progress(quiet=True))
    assert result.manifest is not None
    assert result.manifest["counts"]["web"]["duplicates"] == 1
    return found


@pytest.mark.parametrize("path", PATHS, ids=["bytes", "edge", "threshold"])
def test_files_are_entered_in_the_order_of_the_page(path: str, entered: Entered) -> None:
    rows = [(file, set(re.findall(r"`([\w.]+)`", names))) for file, names in ROW.findall(path)]
    assert re.search(rf"\b{len(rows)} files", path)
    places = []
    for file, names in rows:
        called = [
            when
            for (where, name), when in entered.items()
            if where == str(REPO / file)
            if name in names or any(name.startswith(f"{one}.") for one in names)
        ]
        assert called or names <= CONFIGS, f"the run does not enter {file}"
        places += [(min(called), file)] if called else []
    assert [file for _, file in sorted(places)] == [file for _, file in places]
