"""What the identities of retrieve and select hang on, and what not."""

from dataclasses import replace
from typing import Any

import pytest

from curation.retrieve import ClusterRetrieval, NoRetrieval, Retrieval, SampleRetrieval
from curation.search.ivf_config import IvfConfig
from curation.select import BalancedSampling, SelectConfig
from pipelines.engine.step import FileRef, Item, Step
from pipelines.rows.parts import Part
from pipelines.stages.retrieve import by_lists, retrieve, select
from pipelines.stages.retrieve.tasks import RetrieveTask, Searched

SAMPLE = SampleRetrieval()
IVF = SampleRetrieval(search="ivf")


def file(name: str) -> FileRef:
    return FileRef(f"/run/{name}", 1, name)


PARTS = tuple(
    Part(n, "web", "uncurated", 10 * n, 10, file(f"i{n}"), file(f"d{n}"), file(f"e{n}")) for n in range(3)
)


def identity(settings: Any, task: Any, load: Any) -> str:
    return Step("any", 1, settings, load, "retrieve").identity(Item(task))


def hits_by(rule: Retrieval, *, seed: int = 0) -> str:
    task = RetrieveTask(PARTS, file("alive"), None)
    return identity(retrieve._settings("trusted", rule, seed), task, retrieve._load)


@pytest.mark.parametrize(
    ("rule", "other", "is_same"),
    [
        (SAMPLE, SAMPLE.model_copy(update={"device": "cuda"}), True),
        (SAMPLE, SAMPLE.model_copy(update={"ivf": IvfConfig(num_probes=3)}), True),
        (SAMPLE, SAMPLE.model_copy(update={"neighbours": 5}), False),
        (SAMPLE, IVF, False),
        (IVF, IVF.model_copy(update={"device": "cuda"}), True),
        (IVF, IVF.model_copy(update={"ivf": IvfConfig(num_probes=3)}), False),
        (IVF, IVF.model_copy(update={"ivf": IvfConfig(min_recall=0.5)}), False),
        (SAMPLE, NoRetrieval(method="none"), False),
    ],
)
def test_hits_hang_on_what_changes_them(rule: Retrieval, other: Retrieval, *, is_same: bool) -> None:
    assert (hits_by(rule) == hits_by(other)) == is_same


def test_only_what_draws_lots_hangs_on_the_seed() -> None:
    for rule in (SAMPLE, NoRetrieval(method="none")):
        assert hits_by(rule, seed=1) == hits_by(rule)
    for rule in (IVF, ClusterRetrieval(method="cluster")):
        assert hits_by(rule, seed=1) != hits_by(rule)


def test_how_a_search_is_cut_is_no_part_of_it() -> None:
    whole = RetrieveTask(PARTS, file("alive"), None)
    cut = replace(whole, searched=Searched((((file("row"), file("score")),),)))
    settings = retrieve._settings("trusted", SAMPLE, 0)
    assert identity(settings, whole, retrieve._load) == identity(settings, cut, retrieve._load)


def test_an_index_serves_whoever_searches_it_otherwise() -> None:
    def search(**ivf: Any) -> by_lists.IvfSearch:
        rule = IVF.model_copy(update={"ivf": IvfConfig(**ivf)})
        return by_lists.IvfSearch("trusted", rule, ((0, 7),), PARTS, file("alive"), 0, 1)

    def trained(**ivf: Any) -> str:
        step, item = search(**ivf).training
        return step.identity(item)

    for searched in ({"num_probes": 3}, {"device": "gpu"}, {"min_recall": 0.5}, {"recall_rows": 9}):
        assert trained(**searched) == trained()
    for made in ({"num_lists": 3}, {"codes": "flat"}, {"shard_rows": 50}, {"sample_rows_per_list": 7}):
        assert trained(**made) != trained()
    # Shards answer several pools at once, unless these visit other lists, or elsewhere.
    assert search(min_recall=0.5).lists == search().lists
    assert search(num_probes=3).lists != search().lists


def test_shards_are_there_whatever_recall_is_asked_for() -> None:
    def shards(**ivf: Any) -> Any:
        rule = IVF.model_copy(update={"ivf": IvfConfig(**ivf)})
        one = by_lists.IvfSearch("trusted", rule, ((0, 7),), PARTS, file("alive"), 0, 1)
        return by_lists._make_search_step([one]).settings

    assert shards(min_recall=0.5) == shards()
    assert shards(recall_rows=9) != shards()


def test_the_order_of_pools_may_break_ties() -> None:
    hits = (("a", file("a")), ("b", file("b")))
    task = select.SelectTask(PARTS, file("alive"), hits, None)
    settings = select.SelectSettings(SelectConfig(), frozenset({"a", "b"}), None)
    turned = replace(task, hits=hits[::-1])
    assert identity(settings, task, select._load) != identity(settings, turned, select._load)
    sampled = SelectConfig(balanced=BalancedSampling(num_images=5))
    assert identity(settings, task, select._load) != identity(
        replace(settings, config=sampled), task, select._load
    )
