"""Retrieval by FAISS's inverted lists: an index is trained once, then built and searched shard by shard.

A shard is a run of the pool's parts, a unit of work and of resume. Its item searches for all queries, of
every curated pool that asks for such an index, and once more exactly for some of them: what share of the
exact neighbours was found is the recall of the result, which is refused under the one that is asked for.

What does the work is imported where it is loaded: it brings torch, for which no dry run waits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from curation import storage
from curation.retrieve import SampleRetrieval
from curation.search.ivf_config import IvfSpec
from pipelines.engine.digest import digest_of
from pipelines.engine.inner import INNER, InnerSteps
from pipelines.engine.runner import Runner
from pipelines.engine.step import FileRef, Item, Receipt, Step, Work
from pipelines.rows.groups import make_groups
from pipelines.rows.parts import Part
from pipelines.stages.retrieve.neighbours import found_in
from pipelines.stages.retrieve.tasks import (
    INDEX_FILE,
    Cuts,
    IndexSettings,
    IndexTask,
    Question,
    Searched,
    SearchSettings,
    SearchTask,
)

# Lists, each in a folder of its own with the inner steps that ask them: what is built stays where a result is
# refused, and answers another rule.
LISTS = "steps/retrieve_lists"


@dataclass(frozen=True)
class IvfSearch:
    """What one curated pool asks of an index."""

    pool: str  # its surviving images are the queries
    rule: SampleRetrieval  # searched by inverted lists
    cuts: Cuts  # of the queries, each with files of its own for what is found; there is one
    parts: tuple[Part, ...]  # of the run
    alive: FileRef
    seed: int
    threads: int  # of a worker

    @property
    def training(self) -> tuple[Step[IndexSettings, IndexTask], Item[IndexTask]]:
        """What trains its index."""
        settings = IndexSettings(self.rule.ivf, self.seed)
        step = Step("retrieve_index", 2, settings, _load_train, "retrieve", self.threads)
        return step, Item(IndexTask(self.parts, self.alive))

    @property
    def lists(self) -> str:
        """Equal for searches that one built index answers."""
        train, item = self.training
        return digest_of(train.identity(item), self.rule.ivf.num_probes, self.rule.ivf.device)


def run_ivf(runner: Runner, searches: Sequence[IvfSearch]) -> dict[str, Searched]:
    """Search in shards: an index is trained once, and each shard built once, for all that it answers.

    Returns:
        For every pool what was found, for `retrieve` to put together.

    Raises:
        ConfigError: no index fits.
    """
    found: dict[str, Searched] = {}
    together: dict[str, list[IvfSearch]] = {}
    for search in searches:
        together.setdefault(search.lists, []).append(search)
    for group in together.values():
        train, to_train = group[0].training
        inner = InnerSteps(runner, storage.join(LISTS, group[0].lists, INNER))
        [index] = inner.run(train, [to_train])
        receipts = inner.run_shown(_make_search_step(group), _shards(group, index, runner.run_dir))
        for place, one in enumerate(group):
            blocks = tuple(
                tuple(found_in(receipt, runner.run_dir, f"{place}-{cut}") for receipt in receipts)
                for cut in range(len(one.cuts))
            )
            truth = tuple(found_in(receipt, runner.run_dir, f"{place}-truth") for receipt in receipts)
            found[one.pool] = Searched(blocks, truth, _spec_of(index))
    return found


def forget_lists(runner: Runner, searches: Iterable[IvfSearch]) -> None:
    """Remove what lies there of lists, once all that they answer is put together."""
    there = storage.list_names(storage.join(runner.run_dir, LISTS))
    for name in there.intersection(search.lists for search in searches):
        InnerSteps(runner, storage.join(LISTS, name, INNER)).forget()
        storage.remove_tree(storage.join(runner.run_dir, LISTS, name))


def _make_search_step(searches: Sequence[IvfSearch]) -> Step[SearchSettings, SearchTask]:
    first = searches[0]
    ivf = first.rule.ivf
    questions = tuple(Question(one.pool, one.rule.neighbours, one.rule.ivf.recall_rows) for one in searches)
    settings = SearchSettings(questions, ivf.num_probes, ivf.device, first.seed)
    num_gpus = int(ivf.device == "gpu")
    return Step("retrieve_shards", 3, settings, _load_shard, "retrieve", first.threads, num_gpus=num_gpus)


def _shards(searches: Sequence[IvfSearch], index: Receipt, run_dir: str) -> list[Item[SearchTask]]:
    first = searches[0]
    searched = [part for part in first.parts if part.role == "uncurated"]
    groups = make_groups(searched, [part.num_rows for part in searched], rows=first.rule.ivf.shard_rows)
    file, spec = index.file(run_dir, INDEX_FILE), _spec_of(index)
    cuts = tuple(one.cuts for one in searches)
    return [Item(SearchTask(group, first.parts, first.alive, file, spec, cuts)) for group in groups]


def _spec_of(index: Receipt) -> IvfSpec:
    return IvfSpec(**index.facts["spec"])


def _load_train(settings: IndexSettings) -> Work[IndexTask]:
    from pipelines.stages.retrieve.list_search import load_index

    return load_index(settings)


def _load_shard(settings: SearchSettings) -> Work[SearchTask]:
    from pipelines.stages.retrieve.list_search import load_shard

    return load_shard(settings)
