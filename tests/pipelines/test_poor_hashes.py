"""No picture is dropped as a copy on a hash, or a descriptor, that knows nothing of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plain_pictures
import pyarrow as pa
import pytest
from PIL import Image

from pipelines.config import apply_override, validate

BY_GIST = ("describe.descriptor=gist", "dedup.cosine_threshold=0.95", "decontaminate.cosine_threshold=0.95")
ALONE = (*BY_GIST, "dedup.phash_radius=null", "decontaminate.phash_radius=null")
BY_CELLS = (*ALONE, "dedup.search=cells", "dedup.cells.num_cells=2")


def save(folder: Path, pictures: Mapping[str, Image.Image]) -> None:
    """As PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")


def lineage(tmp_path: Path, rows_of: Any, run_quietly: Any, *overrides: str) -> list[dict[str, Any]]:
    """What became of the pictures in `pool`, and of those in `holdout` where there are any."""
    pools = {"web": {"role": "uncurated", "sources": [{"kind": "folder", "path": str(tmp_path / "pool")}]}}
    if (tmp_path / "holdout").is_dir():
        sources = [{"kind": "folder", "path": str(tmp_path / "holdout")}]
        pools["evaluation"] = {"role": "holdout", "sources": sources}
    data = {"run_dir": str(tmp_path / "run"), "pools": pools, "executor": {"kind": "local"}}
    for override in overrides:
        apply_override(data, override)
    run_quietly(validate(data, where="the test's config"))
    table: pa.Table = rows_of(tmp_path / "run", "lineage")
    return table.to_pylist()


def dropped(rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Those dropped as copies or leaks, and because of what."""
    stages = ("dedup", "decontaminate")
    return [(row["key"], row["reason"], row["by_key"]) for row in rows if row["stage"] in stages]


@pytest.mark.xfail(strict=True, reason="a hash that knows nothing makes edges")
def test_a_placeholder_in_a_holdout_condemns_nothing(tmp_path: Path, rows_of: Any, run_quietly: Any) -> None:
    save(tmp_path / "holdout", {"placeholder": plain_pictures.flat_colours()["pale"]})
    chosen = ("red", "blue", "black", "nl", "rainbow", "columns 1")
    save(tmp_path / "pool", {name: plain_pictures.all_unlike()[name] for name in chosen})
    assert dropped(lineage(tmp_path, rows_of, run_quietly)) == []


@pytest.mark.xfail(strict=True, reason="a hash that knows nothing makes edges")
def test_flat_colours_are_no_copies(tmp_path: Path, rows_of: Any, run_quietly: Any) -> None:
    save(tmp_path / "pool", plain_pictures.flat_colours())
    assert dropped(lineage(tmp_path, rows_of, run_quietly)) == []


@pytest.mark.xfail(strict=True, reason="a hash that knows nothing makes edges")
def test_of_unlike_pictures_none_is_dropped(tmp_path: Path, rows_of: Any, run_quietly: Any) -> None:
    save(tmp_path / "pool", plain_pictures.all_unlike())
    assert dropped(lineage(tmp_path, rows_of, run_quietly)) == []


@pytest.mark.xfail(strict=True, reason="hashes and descriptors that know nothing make edges")
@pytest.mark.parametrize("settings", [BY_GIST, ALONE, BY_CELLS])
def test_no_descriptor_drops_a_picture_with_nothing_in_it(
    settings: tuple[str, ...], tmp_path: Path, rows_of: Any, run_quietly: Any
) -> None:
    plain = plain_pictures.flat_colours() | plain_pictures.gradients() | plain_pictures.patterns()
    save(tmp_path / "pool", plain)
    save(tmp_path / "holdout", plain_pictures.flags())
    assert dropped(lineage(tmp_path, rows_of, run_quietly, *settings)) == []
