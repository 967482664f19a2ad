"""Retrieval by inverted lists: exact where every list is visited, refused where it finds too little."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curation.errors import ConfigError
from pipelines.answers.verify import verify
from pipelines.stages.retrieve import list_search

IVF = (
    "pools.trusted.retrieve.search=ivf",
    "pools.trusted.retrieve.ivf.codes=flat",
    "pools.trusted.retrieve.ivf.num_lists=6",
)
EVERY_LIST = (*IVF, "pools.trusted.retrieve.ivf.num_probes=6")


def hits_of(run_dir: Path) -> Any:
    (file,) = (run_dir / "steps" / "retrieve").glob("*/hits.parquet")
    return pq.read_table(file).drop_columns(["method"])


@pytest.fixture
def exact(tmp_path: Path, configure: Any, run_quietly: Any) -> Any:
    run_quietly(configure(tmp_path / "exact"), until="retrieve")
    return hits_of(tmp_path / "exact")


@pytest.mark.parametrize("shard_rows", [50, 10_000])
def test_where_every_list_is_visited_it_is_exact(
    shard_rows: int, exact: Any, tmp_path: Path, configure: Any, run_quietly: Any
) -> None:
    more = f"pools.trusted.retrieve.ivf.shard_rows={shard_rows}"
    manifest = run_quietly(configure(tmp_path / "run", *EVERY_LIST, more)).manifest
    assert len(exact) > 50
    assert hits_of(tmp_path / "run").equals(exact)
    assert not list((tmp_path / "run" / "steps" / "retrieve_lists").glob("*"))
    (recall,) = manifest["recall"]
    assert (recall["step"], recall["pool"], recall["index"]) == ("retrieve", "trusted", "IVF6,SQfp16")
    assert recall["estimate"] == 1.0
    assert recall["num_pairs"] > 50
    report = (tmp_path / "run" / manifest["dataset_dir"] / "report.html").read_text("utf-8")
    assert "were searched in inverted lists (<code>IVF6,SQfp16</code>, 6 probes)" in report
    assert verify(str(tmp_path / "run")) == []


def test_pools_that_ask_for_one_index_share_it(
    web: Path, tmp_path: Path, configure: Any, run_quietly: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained once, each shard put into lists once; each pool finds what an exact search finds."""
    concepts = sorted((web / "curated").iterdir())
    for pool, mine in (("one", concepts[::2]), ("two", concepts[1::2])):
        for folder in mine:
            shutil.copytree(folder, tmp_path / pool / folder.name)

    def pools(search: str) -> tuple[str, ...]:
        sources = {name: f"[{{kind: folder, path: {tmp_path / name}}}]" for name in ("one", "two")}
        lists = "{codes: flat, num_lists: 6, num_probes: 6, shard_rows: 50}"
        rule = f"method: sample, search: {search}, ivf: {lists}"
        return tuple(
            f"pools.{pool}={{role: curated, sources: {sources[own]}, retrieve: {{neighbours: {k}, {rule}}}}}"
            for pool, own, k in (("trusted", "one", 3), ("again", "two", 2))
        )

    trained, built = [], []
    train, make = list_search.train_index, list_search.IvfShard

    def counted_train(*args: Any, **more: Any) -> Any:
        trained.append(1)
        return train(*args, **more)

    def counted_make(rows: Any, vectors: Any, *args: Any, **more: Any) -> Any:
        built.append(vectors.tobytes())
        return make(rows, vectors, *args, **more)

    monkeypatch.setattr(list_search, "train_index", counted_train)
    monkeypatch.setattr(list_search, "IvfShard", counted_make)
    steps = tmp_path / "run" / "steps"

    def hits() -> list[Any]:
        return [pq.read_table(file) for file in sorted((steps / "retrieve").glob("*/hits.parquet"))]

    run_quietly(configure(tmp_path / "run", *pools("ivf")), until="retrieve")
    assert len(trained) == 1
    assert len(built) == len(set(built)) > 1
    by_query = {tuple(table["query"].unique().to_pylist()): table for table in hits()}
    assert len(by_query) == 2
    assert min(map(len, by_query)) > 3
    assert not [*(steps / "retrieve_lists").glob("*")]
    run_quietly(configure(tmp_path / "run", *pools("exact")), until="retrieve")
    assert len(hits()) == 4
    for table in hits():
        assert table.equals(by_query[tuple(table["query"].unique().to_pylist())])


def test_a_result_under_the_recall_asked_for_is_refused(
    tmp_path: Path, configure: Any, run_quietly: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("pools.trusted.retrieve.ivf.num_probes=1", "pools.trusted.retrieve.ivf.min_recall=1.0")
    with pytest.raises(ConfigError, match=r"finds too few of the nearest images.*recall 0\.\d+ of IVF6"):
        run_quietly(configure(tmp_path / "run", *IVF, *few))
    assert not (tmp_path / "run" / "manifest.json").exists()

    def search_again(*_args: Any) -> Any:
        raise AssertionError("what was refused is there")

    monkeypatch.setattr("pipelines.stages.retrieve.by_lists._load_shard", search_again)
    result = run_quietly(
        configure(tmp_path / "run", *IVF, few[0], "pools.trusted.retrieve.ivf.min_recall=0.1")
    )
    assert 0.1 < result.manifest["recall"][0]["estimate"] < 1


def test_an_exact_search_is_the_same_whatever_is_said_of_lists(
    tmp_path: Path, configure: Any, run_quietly: Any
) -> None:
    run_quietly(configure(tmp_path / "run"), until="retrieve")
    run_quietly(configure(tmp_path / "run", "pools.trusted.retrieve.ivf.num_probes=3"), until="retrieve")
    assert len(list((tmp_path / "run" / "steps" / "retrieve").glob("*/hits.parquet"))) == 1


def test_other_clusters_leave_a_search_by_sample_as_it_is(
    tmp_path: Path, configure: Any, run_quietly: Any
) -> None:
    for more in ("cluster.iterations=3", "cluster.iterations=4"):
        run_quietly(configure(tmp_path / "run", more), until="retrieve")
    assert len(list((tmp_path / "run" / "steps" / "cluster").glob("*/cluster.npy"))) == 2
    assert len(list((tmp_path / "run" / "steps" / "retrieve").glob("*/hits.parquet"))) == 1
