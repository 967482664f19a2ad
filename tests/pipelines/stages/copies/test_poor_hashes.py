"""No picture is dropped as a copy on a hash, or a descriptor, that knows nothing of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plain_pictures
import pyarrow as pa
import pytest
from PIL import Image

from curation.errors import ConfigError
from pipelines.answers.explain import explain
from pipelines.answers.explain_words import explain_lines
from pipelines.answers.nearest import NearestQuery, search
from pipelines.config.read import apply_override
from pipelines.config.run_config import validate

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


def test_a_placeholder_in_a_holdout_condemns_nothing(tmp_path: Path, rows_of: Any, run_quietly: Any) -> None:
    save(tmp_path / "holdout", {"placeholder": plain_pictures.flat_colours()["pale"]})
    chosen = ("red", "blue", "black", "nl", "rainbow", "columns 1")
    save(tmp_path / "pool", {name: plain_pictures.all_unlike()[name] for name in chosen})
    assert dropped(lineage(tmp_path, rows_of, run_quietly)) == []


def test_flat_colours_are_no_copies(tmp_path: Path, rows_of: Any, run_quietly: Any) -> None:
    save(tmp_path / "pool", plain_pictures.flat_colours())
    assert dropped(lineage(tmp_path, rows_of, run_quietly)) == []


def test_of_unlike_pictures_none_is_dropped(tmp_path: Path, rows_of: Any, run_quietly: Any) -> None:
    save(tmp_path / "pool", plain_pictures.all_unlike())
    assert dropped(lineage(tmp_path, rows_of, run_quietly)) == []


@pytest.mark.parametrize("settings", [BY_GIST, ALONE, BY_CELLS])
def test_no_descriptor_drops_a_picture_with_nothing_in_it(
    settings: tuple[str, ...], tmp_path: Path, rows_of: Any, run_quietly: Any
) -> None:
    plain = plain_pictures.flat_colours() | plain_pictures.gradients() | plain_pictures.patterns()
    save(tmp_path / "pool", plain)
    save(tmp_path / "holdout", plain_pictures.flags())
    assert dropped(lineage(tmp_path, rows_of, run_quietly, *settings)) == []


def test_equal_pixels_are_copies_and_leaks(tmp_path: Path, rows_of: Any, run_quietly: Any) -> None:
    plain = plain_pictures.flat_colours() | plain_pictures.flags() | plain_pictures.patterns()
    save(tmp_path / "pool", plain)
    for name in ("red", "de", "rows 1"):
        plain[name].save(tmp_path / "pool" / f"{name} again.png", compress_level=0)
    plain["nl"].resize((256, 192)).save(tmp_path / "pool" / "nl again.jpg", quality=80)
    save(tmp_path / "holdout", {"pale": plain["pale"].resize((300, 200))})
    found = {(key, reason, by) for key, reason, by in dropped(lineage(tmp_path, rows_of, run_quietly))}
    assert {(reason, frozenset((key, by))) for key, reason, by in found} == {
        ("near_copy", frozenset(("red.png", "red again.png"))),
        ("near_copy", frozenset(("de.png", "de again.png"))),
        ("near_copy", frozenset(("rows 1.png", "rows 1 again.png"))),
        ("near_copy", frozenset(("nl.png", "nl again.jpg"))),
        ("leaks_holdout", frozenset(("pale.png",))),
    }


def test_it_is_told_why_a_near_hash_makes_no_copy(tmp_path: Path, rows_of: Any, run_quietly: Any) -> None:
    save(tmp_path / "pool", plain_pictures.flat_colours() | plain_pictures.drawings())
    lineage(tmp_path, rows_of, run_quietly, *BY_GIST)
    told = {
        key: " ".join(" ".join(explain_lines(explain(str(tmp_path / "run"), key, pool=None))).split())
        for key in ("blue.png", "code 0.png")
    }
    assert "1 bits of 64 are certain. That is a poor hash, as 52 certain bits are" in told["blue.png"]
    assert "No other image is a copy of it (a copy is one from 0.9 by pixels)." in told["blue.png"]
    assert "poor hash" not in told["code 0.png"]
    assert "(a copy is one from 0.9062 by perceptual hash or 0.95 by copy descriptor)" in told["code 0.png"]
    json.dumps(explain(str(tmp_path / "run"), "blue.png", pool=None))


def test_a_search_by_descriptor_leaves_out_what_descriptors_know_nothing_of(
    tmp_path: Path, rows_of: Any, run_quietly: Any
) -> None:
    save(tmp_path / "pool", plain_pictures.flat_colours() | plain_pictures.drawings())
    lineage(tmp_path, rows_of, run_quietly, *BY_GIST)
    run_dir = str(tmp_path / "run")
    hits = search(run_dir, NearestQuery(image="code 0.png", by="descriptors", k=100)).hits
    assert {"code 1.png", "page 0.png"} <= {hit["key"] for hit in hits}
    assert not {f"{name}.png" for name in plain_pictures.flat_colours()} & {hit["key"] for hit in hits}
    with pytest.raises(ConfigError, match="too little in it"):
        search(run_dir, NearestQuery(image="blue.png", by="descriptors"))
    assert len(search(run_dir, NearestQuery(image="blue.png", k=100)).hits) > len(hits)
