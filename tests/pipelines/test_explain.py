"""The story of an image: every verdict of a run, checked against its tables, and read as people read it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation import storage
from curation.errors import ConfigError, IntegrityError
from pipelines.cli import main
from pipelines.explain import explain, open_run
from pipelines.explain_words import explain_lines
from pipelines.find_image import near_names
from pipelines.made import find_made
from pipelines.parts import gather_vectors, read, read_array
from pipelines.run_dir import read_manifest, read_run_config

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


def test_a_copy_names_who_stays_and_the_weakest_edge(finished: Path, rows: list[dict[str, Any]]) -> None:
    row = next(row for row in rows if row["reason"] == "near_copy")
    found, text = told(finished, row)
    group = found["story"]["dedup"]
    assert group["representative"] == f"{row['by_pool']}/{row['by_key']}"
    assert group["score"] == row["score"]
    assert group["size"] == sum(other["component"] == row["component"] for other in rows)
    assert group["size"] == len(found["copies"])
    assert f"{row['by_pool']}/{row['by_key']} stays" in flat(text)
    assert "The weakest edge that holds the component together is" in flat(text)


def test_a_leak_names_the_evaluation_image(finished: Path, rows: list[dict[str, Any]]) -> None:
    row = next(row for row in rows if row["reason"] == "leaks_holdout")
    found, text = told(finished, row)
    assert found["story"]["decontaminate"]["leak"]["holdout"] == f"{row['by_pool']}/{row['by_key']}"
    assert f"leaks the evaluation image {row['by_pool']}/{row['by_key']}" in flat(text)


def test_who_brought_it_in_and_how_far_it_was(finished: Path, rows: list[dict[str, Any]]) -> None:
    made = find_made(str(finished), read_run_config(str(finished)), manifest=read_manifest(str(finished)))
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
    manifest = read_manifest(str(finished))
    row = rows[3]
    name = row["key"].rsplit("/", 1)[-1]
    near = near_names(str(finished), manifest, f"elsewhere/{name}", pool=row["pool"])
    assert f"{row['pool']}/{row['key']}" in near
    assert f"id {row['image_id']}" in near_names(str(finished), manifest, row["image_id"][:5])
    with pytest.raises(ConfigError, match="has no pool 'moon'"):
        explain(str(finished), row["key"], pool="moon")


def test_the_saved_answer_is_that_of_the_flow(damageable: Path, rows: list[dict[str, Any]]) -> None:
    """Without the saved file the flow is asked, in a run directory that has been moved: the same story."""
    row = next(row for row in rows if row["reason"] == "near_copy")
    before = told(damageable, row)
    [marker] = (damageable / "steps" / "dataset" / "markers").iterdir()
    text = marker.read_text()
    marker.unlink()
    assert told(damageable, row) == before
    marker.write_text("{")
    with pytest.raises(IntegrityError, match="damaged"):
        open_run(str(damageable))
    marker.write_text(text)
    shutil.rmtree(damageable / "steps")
    found, said = told(damageable, row)
    assert set(found["story"]) == {"select", "shard"}
    assert "intermediate data is gone" in said


def test_it_needs_no_heavy_library(finished: Path, rows: list[dict[str, Any]]) -> None:
    row = next(row for row in rows if row["reason"] == "not_retrieved")
    code = (
        "import sys; from pipelines.cli import main; "
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
