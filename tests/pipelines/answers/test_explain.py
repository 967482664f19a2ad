"""The story of an image: every verdict of a run, checked against its tables, and read as people read it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curation import storage
from curation.describe.filters import JudgeConfig, judge
from curation.errors import ConfigError, SourceError
from curation.schema import DESCRIBED, SCORES
from pipelines.answers.explain import explain, judged
from pipelines.answers.explain_words import explain_lines
from pipelines.answers.find_image import near_names
from pipelines.answers.finished_run import require_run
from pipelines.answers.nearest import NearestQuery, search, search_data
from pipelines.cli.main import main
from pipelines.config.run_dir import read_run_config
from pipelines.engine.step import FileRef
from pipelines.rows.parts import Part, gather_vectors, read, read_array

HEAVY = ("torch", "pandas", "rich", "faiss", "scipy", "jinja2", "ray", "pipelines.lvd")


@pytest.fixture(scope="module")
def rows(finished: Path, rows_of: Callable[..., Any]) -> list[dict[str, Any]]:
    return rows_of(finished, "lineage").to_pylist()


def told(run_dir: Path, row: dict[str, Any]) -> tuple[dict[str, Any], str]:
    found = explain(str(run_dir), row["key"], pool=row["pool"])
    return found["images"][0], "\n".join(explain_lines(found))


def flat(text: str) -> str:
    return " ".join(text.split())


def test_every_reason_of_the_run_has_a_story(finished: Path, rows: list[dict[str, Any]]) -> None:
    firsts = {(row["pool"], row["reason"]): row for row in rows}
    assert len({reason for _, reason in firsts}) > 5
    for row in firsts.values():
        found, text = told(finished, row)
        assert {key: found[key] for key in row} == row
        assert text.startswith(
            f"{row['pool']}/{row['key']} is {'' if row['decision'] == 'kept' else 'not '}in"
        )
        assert max(map(len, text.splitlines()[1:])) <= 120
        json.dumps(found)


def test_a_refusal_tells_the_words_of_the_decoder(finished: Path, rows: list[dict[str, Any]]) -> None:
    cut = next(row for row in rows if row["reason"] == "truncated")
    found, text = told(finished, cut)
    said = found["story"]["describe"]["warnings"]
    assert said
    assert f"The decoder said: {said[0]}." in flat(text)


def test_a_copy_names_who_stays_and_the_weakest_edge(finished: Path, rows: list[dict[str, Any]]) -> None:
    row = next(row for row in rows if row["reason"] == "near_copy")
    found, text = told(finished, row)
    group = found["story"]["dedup"]
    assert group["representative"] == f"{row['by_pool']}/{row['by_key']}"
    assert group["score"] == row["score"]
    assert group["size"] == sum(other["component"] == row["component"] for other in rows)
    assert group["size"] == len(found["copies"])
    assert f"{row['by_pool']}/{row['by_key']} stays" in flat(text)
    assert "The weakest edge of the component is" in flat(text)


def test_a_leak_names_the_evaluation_image(finished: Path, rows: list[dict[str, Any]]) -> None:
    row = next(row for row in rows if row["reason"] == "leaks_holdout")
    found, text = told(finished, row)
    assert found["story"]["decontaminate"]["leak"]["holdout"] == f"{row['by_pool']}/{row['by_key']}"
    assert f"leaks the evaluation image {row['by_pool']}/{row['by_key']}" in flat(text)


def test_who_brought_it_in_and_how_far_it_was(finished: Path, rows: list[dict[str, Any]]) -> None:
    made = require_run(str(finished)).made
    assert made is not None
    brought = next(row for row in rows if row["reason"] == "retrieved_by_sample")
    [answer] = told(finished, brought)[0]["story"]["retrieve"]
    assert answer["hits"][0]["by"] == f"{brought['by_pool']}/{brought['by_key']}"
    assert answer["hits"][0]["score"] == brought["score"]

    row = next(i for i, row in enumerate(rows) if row["reason"] == "not_retrieved")
    found, text = told(finished, rows[row])
    [answer] = found["story"]["retrieve"]
    # The reference: all products of this image with all curated images, and the last hit of each.
    hits = read(made.hits["trusted"]).to_pylist()
    alive = np.asarray(read_array(made.alive))
    vector = gather_vectors(made.parts, "embeddings", np.array([row]))[0].astype(np.float64)
    score, needed = {}, {}
    for query in (i for i, other in enumerate(rows) if other["pool"] == "trusted" and alive[i]):
        other = gather_vectors(made.parts, "embeddings", np.array([query]))[0].astype(np.float64)
        score[query] = float(other @ vector)
        needed[query] = min((hit["score"] for hit in hits if hit["query"] == query), default=np.inf)
    nearest = max(score, key=lambda query: score[query])
    closest = min(score, key=lambda query: needed[query] - score[query])
    missed = answer["missed"]
    assert missed["nearest"] == {"by": f"trusted/{rows[nearest]['key']}", "score": score[nearest]}
    assert missed["closest"]["by"] == f"trusted/{rows[closest]['key']}"
    assert missed["closest"]["needed"] == needed[closest] > missed["closest"]["score"] == score[closest]
    assert "were missing" in text


def test_clusters_and_shards_are_those_of_the_run(finished: Path, rows: list[dict[str, Any]]) -> None:
    kept = next(row for row in rows if row["shard"] is not None and row["pool"] == "trusted")
    story = told(finished, kept)[0]["story"]
    assert story["cluster"]["cluster"] == kept["cluster"]
    same = [row for row in rows if row["cluster"] == kept["cluster"]]
    assert story["cluster"]["size"] == len(same)
    assert story["cluster"]["seeds"] == {"trusted": sum(row["pool"] == "trusted" for row in same)}
    [image, *_] = story["shard"]["members"]
    with Path(story["shard"]["path"]).open("rb") as tar:
        tar.seek(image["offset"])
        data = tar.read(image["num_bytes"])
    assert data == Path(kept["uri"]).read_bytes()


def test_what_comes_near_is_named(finished: Path, rows: list[dict[str, Any]]) -> None:
    run, row = require_run(str(finished)), rows[3]
    name = row["key"].rsplit("/", 1)[-1]
    near = near_names(run, f"elsewhere/{name}", pool=row["pool"])
    assert f"{row['pool']}/{row['key']}" in near
    assert f"id {row['image_id']}" in near_names(run, row["image_id"][:5])
    with pytest.raises(ConfigError, match="has no pool 'moon'"):
        explain(str(finished), row["key"], pool="moon")


@pytest.mark.parametrize("name", ["{pool}/{key}", "{uri}"])
def test_an_image_is_found_by_every_name_that_is_printed(
    finished: Path, rows: list[dict[str, Any]], name: str
) -> None:
    row = rows[-1]
    found = explain(str(finished), name.format_map(row), pool=None)["images"]
    assert {"pool": row["pool"], "key": row["key"]} in [
        {field: one[field] for field in ("pool", "key")} for one in found
    ]
    with pytest.raises(ConfigError, match="No image"):
        explain(str(finished), f"nobody/{row['key']}", pool=None)


def test_the_saved_answer_is_that_of_the_flow(damageable: Path, rows: list[dict[str, Any]]) -> None:
    """Without the saved file the flow is asked, in a run directory that has been moved: the same story."""
    row = next(row for row in rows if row["reason"] == "near_copy")
    before = told(damageable, row)
    [marker] = (damageable / "steps" / "dataset" / "markers").iterdir()
    text = marker.read_text()
    marker.unlink()
    assert told(damageable, row) == before
    for damaged in ("{", text.replace('"offset": 0', '"offset": 1'), text[:-9]):
        assert damaged != text
        marker.write_text(damaged)
        assert told(damageable, row) == before
    marker.write_text(text)
    shutil.rmtree(damageable / "steps")
    found, said = told(damageable, row)
    assert set(found["story"]) == {"select", "shard"}
    assert "intermediate data is gone" in said


def test_bounds_are_judged_as_the_run_judged_them(tmp_path: Path) -> None:
    """A picture on a bound is kept; one whose score is unknown does not pass a threshold on the score."""
    fixed = {"sha256": b"\0" * 32, "num_bytes": 1, "format": "PNG", "phash": 0, "warnings": []}
    row = {"width": 90, "height": 80, "pixel_std": 3.0, "uniform_share": 0.98, "stroke_share": 0.1}
    described = pa.Table.from_pylist([{**fixed, **row, "has_embedding": True, "reason": None}], DESCRIBED)
    scores = pa.Table.from_pylist([{"nsfw": np.nan, "aesthetic": 4.9}], SCORES)
    files = []
    for name, table in (("described", described), ("scores", scores)):
        path = str(tmp_path / f"{name}.parquet")
        storage.write_table(path, table)
        sha256, num_bytes = storage.sha256_file(path)
        files.append(FileRef(path, num_bytes, sha256))
    part = Part(0, "web", "uncurated", 0, 1, files[0], described=files[0], scores=files[1])
    config = JudgeConfig(max_uniform_share=0.98, min_pixel_std=3.5, max_nsfw=0.5, min_aesthetic=4.9)
    passes = {bound["field"]: bound["passes"] for bound in judged(config, part, 0)["bounds"]}
    assert [field for field, passed in passes.items() if not passed] == [
        "judge.min_pixel_std",
        "judge.max_nsfw",
    ]
    assert judge(described, config, scores=scores)["reason"].to_pylist() == ["low_information"]


def test_a_later_run_of_another_config_changes_no_answer(
    damageable: Path, rows: list[dict[str, Any]], configure: Any, run_quietly: Any, tmp_path: Path
) -> None:
    """The story is that of the dataset in the manifest, not of the run that has begun since."""
    asked = [next(row for row in rows if row["reason"] == reason) for reason in ("curated", "not_retrieved")]
    before = [told(damageable, row) for row in asked]
    file = tmp_path / "unknown.png"
    with Image.open(asked[0]["uri"]) as picture:
        picture.convert("RGB").resize((90, 70)).save(file)
    vectors = tmp_path / "vectors.parquet"
    vectors.write_bytes(b"no vectors")
    found = search_data(search(str(damageable), NearestQuery(file=str(file))))
    embedder = f"describe.embed.embedder=precomputed:{vectors}"
    other = configure(damageable, "judge.min_side_px=99", embedder)
    other = other.model_copy(update={"pools": {**other.pools, "more": other.pools["trusted"]}})
    with pytest.raises(SourceError, match="No precomputed embeddings"):
        run_quietly(other)  # it stops half-way
    assert "more" in read_run_config(str(damageable)).pools
    assert [told(damageable, row) for row in asked] == before
    assert search_data(search(str(damageable), NearestQuery(file=str(file)))) == found
    for saved in (damageable / "configs").iterdir():
        saved.unlink()
    with pytest.raises(ConfigError, match="not known any more"):
        _ = require_run(str(damageable)).config


def test_it_needs_no_heavy_library(finished: Path, rows: list[dict[str, Any]]) -> None:
    row = next(row for row in rows if row["reason"] == "not_retrieved")
    code = (
        "import sys; from pipelines.cli.main import main; "
        f"codes = [main(['explain', {str(finished)!r}, {row['key']!r}]), "
        f"main(['search', {str(finished)!r}, '--id', {row['image_id']!r}])]; "
        f"print([m for m in {HEAVY!r} if m in sys.modules], codes)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] [0, 0]"


def test_a_run_that_is_done_saves_it_again(damageable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [marker] = (damageable / "steps" / "dataset" / "markers").iterdir()
    assert json.loads(storage.read_bytes(str(marker)))["schema"] == 1
    assert main(["clean", str(damageable), "--keep-current", "--yes"]) == 0
    assert not marker.exists()
    capsys.readouterr()
