"""A finished run as a notebook sees it: what the commands say, and rows that fit one another."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from curation.errors import ConfigError
from curation.schema import LINEAGE
from pipelines.answers.explain import explain
from pipelines.answers.explain_words import explain_lines
from pipelines.answers.nearest import NearestQuery, Vectors, search
from pipelines.answers.open_run import NEIGHBOURS, OpenRun, open_run


@pytest.fixture(scope="module")
def opened(finished: Path) -> OpenRun:
    return open_run(str(finished))


def test_the_lineage_is_the_datasets(
    opened: OpenRun, finished: Path, rows_of: Callable[[Path, str], pa.Table]
) -> None:
    assert opened.lineage().equals(rows_of(finished, "lineage"))
    some = opened.lineage(["key", "decision"])
    assert some.schema.names == ["key", "decision"]
    kept = pc.sum(pc.equal(some["decision"], "kept")).as_py()
    assert kept == opened.manifest["counts"]["dataset"]
    with pytest.raises(
        ConfigError, match=r"No column of the lineage\. Got: colour, taste\. Expected: pool, key"
    ):
        opened.lineage(["key", "taste", "colour"])
    assert opened.config.name == "demo"


@pytest.mark.parametrize("by", ["embeddings", "descriptors"])
def test_vectors_stand_in_the_order_of_the_lineage(opened: OpenRun, by: Vectors) -> None:
    vectors, lineage = opened.vectors(by=by), opened.lineage(["stage", "reason"])
    assert vectors.dtype == np.float16
    assert len(vectors) == len(lineage)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    undecoded = pc.equal(lineage["stage"], "describe").to_numpy()
    assert undecoded.any()
    assert (lengths[undecoded] == 0).all()
    np.testing.assert_allclose(lengths[~undecoded], 1, atol=1e-3)
    some = np.array([3, 50, len(vectors) - 1])
    np.testing.assert_array_equal(opened.vectors(some, by=by), vectors[some])
    np.testing.assert_array_equal(opened.vectors(some[[2, 0, 0]], by=by), vectors[some[[2, 0, 0]]])
    for wrong in (-1, len(vectors)):
        with pytest.raises(ConfigError, match=rf"No row of the run\. .*Expected: 0 to {len(vectors) - 1}"):
            opened.vectors(np.array([3, wrong]), by=by)


def test_explain_is_that_of_the_command(opened: OpenRun, finished: Path) -> None:
    lineage = opened.lineage(["pool", "key", "reason"])
    copy = lineage.filter(pc.equal(lineage["reason"], "near_copy")).slice(0, 1).to_pylist()[0]
    found = explain(str(finished), copy["key"], pool=copy["pool"])
    assert opened.explain(copy["key"], pool=copy["pool"]) == found["images"]
    assert opened.explain_in_words(copy["key"], pool=copy["pool"]).splitlines() == explain_lines(found)
    with pytest.raises(ConfigError, match="No image"):
        opened.explain("no/such.jpg")


def test_search_is_that_of_the_command(opened: OpenRun, finished: Path) -> None:
    lineage = opened.lineage()
    row = pc.index(lineage["decision"], "kept").as_py()
    name = f"{lineage['pool'][row]}/{lineage['key'][row]}"
    found = opened.search(name, k=4)
    assert found.schema == NEIGHBOURS
    assert found["row"].to_pylist() == list(search(str(finished), NearestQuery(image=name, k=4)).rows)
    assert found.select(LINEAGE.names).equals(lineage.take(found["row"]))
    vectors = opened.vectors().astype(np.float64)
    np.testing.assert_array_equal(found["score_with_query"], vectors[found["row"]] @ vectors[row])
    # The same of a file: the picture itself comes first.
    file = lineage["uri"][row].as_py()
    assert opened.search(file=file, k=1, kept=True)["row"].to_pylist() == [row]
    assert opened.search(name, k=1, pool="web")["pool"].to_pylist() == ["web"]
    for image, path in ((None, None), (name, file)):
        with pytest.raises(ConfigError, match="one image or one file"):
            opened.search(image, file=path)


def test_shards_hold_what_the_lineage_keeps(opened: OpenRun) -> None:
    lineage = opened.lineage(["image_id", "decision"])
    kept = lineage.filter(pc.equal(lineage["decision"], "kept"))["image_id"].to_pylist()
    with opened.shards() as shards:
        assert sorted(sample.key for sample in shards.iterate()) == sorted(kept)


def test_a_run_without_its_intermediate_data_has_its_lineage(
    finished: Path, tmp_path: Path, rows_of: Callable[[Path, str], pa.Table]
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "steps")
    opened = open_run(str(tmp_path / "run"))
    assert opened.lineage().equals(rows_of(finished, "lineage"))
    with pytest.raises(ConfigError, match=r"The vectors of \S+ are gone"):
        opened.vectors()


def test_there_must_be_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No finished dataset"):
        open_run(str(tmp_path))
