"""A pool that grows: a source at a time gives what one run over all gives, for its share of the work."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from lvd_process import run_lvd
from outcome import Outcome
from PIL import Image

pytestmark = pytest.mark.accept

# A block of the join closes once it has 1,024 rows, so a source is two parts and one block.
SOURCE_IMAGES, PART_ROWS, BLOCK_ROWS = 1_100, 550, 1_024
SOURCES = ("first", "second", "third")


@pytest.fixture(scope="module")
def growing_web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sources of a pool, anchors and evaluation images, with copies within and across them."""
    root = tmp_path_factory.mktemp("growing")
    rng = np.random.default_rng(5)
    made = {name: [_picture(rng) for _ in range(SOURCE_IMAGES)] for name in SOURCES}
    made["anchors"] = [_picture(rng) for _ in range(60)]
    made["evaluation"] = [_picture(rng) for _ in range(30)]
    for name in SOURCES:
        for place, other in ((10, "first"), (20, "anchors"), (30, "evaluation")):
            made[name][place] = made[other][place - 1]
    for name, pictures in made.items():
        (root / name).mkdir()
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(root / name / f"{number:04d}.png")
    return root


def _picture(rng: np.random.Generator) -> np.ndarray:
    """48 px of blurred colour noise."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    return np.asarray(coarse.resize((48, 48), Image.Resampling.BICUBIC))


def config_over(root: Path, sources: Sequence[str]) -> dict[str, Any]:
    """A run over the anchors, the evaluation images and some of the pool's sources."""

    def folder(name: str) -> dict[str, str]:
        return {"kind": "folder", "path": str(root / name), "key_prefix": f"{name}/"}

    return {
        "name": "growing",
        "pools": {
            "anchors": {"role": "curated", "sources": [folder("anchors")]},
            "web": {"role": "uncurated", "sources": [folder(name) for name in sources]},
            "evaluation": {"role": "holdout", "sources": [folder("evaluation")]},
        },
        "ingest": {"part_rows": PART_ROWS},
        "judge": {"min_side_px": 16},
        "describe": {"embed": {"embedder": "gist"}, "descriptor": "gist"},
        "dedup": {"cosine_threshold": 0.97, "edge_floor": 0.95, "block_rows": BLOCK_ROWS},
        "decontaminate": {"cosine_threshold": 0.97},
        "shard": {"max_samples": 100},
    }


def curate(root: Path, sources: Sequence[str], run_dir: Path) -> None:
    """Run over some of the sources."""
    path = run_dir.with_name("growing.yaml")
    path.write_text(yaml.safe_dump(config_over(root, sources), sort_keys=False))
    command = ["run", str(path), f"--set=run_dir={run_dir}", "--executor", "local"]
    run_lvd(command, log=run_dir.with_name("log"))


def items_of(run_dir: Path, step: str) -> set[str]:
    """The identities of a step's finished items."""
    return {path.parent.name for path in (run_dir / "steps" / step).glob("*/receipt.json")}


def test_three_steps_give_the_bytes_of_one_run(growing_web: Path, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole, grown = tmp_path / "whole" / "run", tmp_path / "run"
    curate(growing_web, SOURCES, whole)
    new_parts, new_pairs = [], []
    for number in range(1, len(SOURCES) + 1):
        before = items_of(grown, "describe"), items_of(grown, "dedup_edges")
        curate(growing_web, SOURCES[:number], grown)
        new_parts.append(len(items_of(grown, "describe") - before[0]))
        new_pairs.append(len(items_of(grown, "dedup_edges") - before[1]))
    print(f"parts described in each step: {new_parts}; block pairs joined: {new_pairs}")
    # Anchors and evaluation are a part each. Blocks: the anchors' and one a source.
    assert new_parts == [4, 2, 2]
    assert new_pairs == [3, 3, 4]
    assert Outcome(grown).digests() == Outcome(whole).digests()
    copies = [row for row in Outcome(grown).rows if row["stage"] in ("dedup", "decontaminate")]
    assert len(copies) >= 8  # two of the first picture's, three of the anchor's, three leaks
    run_lvd(["verify", str(grown)], log=tmp_path / "log")
