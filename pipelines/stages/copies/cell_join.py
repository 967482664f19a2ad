"""Joins rows into edges cell by cell: an approximate join that says how much it finds before it starts.

Cells are trained on sampled rows; other sampled rows are compared with the whole pool exactly, which tells
how many cells a row must visit, and what share of the pairs is found then. Every block of rows is assigned to
its cells, and each group of cells is a unit of work and of resume of its own.

The work is imported where it is loaded: it brings torch along, seconds that no dry run waits for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from curation.search.cells_config import MAX_PROBES, CellsConfig
from pipelines.engine.runner import Runner
from pipelines.engine.step import Item, Receipt, Settings, Step, Task, Work
from pipelines.stages.copies.blocks import Block
from pipelines.stages.copies.cell_tasks import (
    TRUTH,
    AssignedBlock,
    AssignedFile,
    AssignSettings,
    AssignTask,
    GroupSettings,
    GroupTask,
    RecallSettings,
    RecallTask,
    TrainedFile,
    TrainSettings,
    TrainTask,
    TruthSettings,
    TruthTask,
)
from pipelines.stages.copies.edge_files import EDGES_FILE, EdgeFile
from pipelines.stages.copies.join_rule import JoinRule

RECALL_SUFFIX = "_recall"  # of the name of the step that measures it


@dataclass(frozen=True)
class CellJoin:
    """What makes an edge, and how it is searched for.

    Args:
        name: of the steps: `NAME_cells`, `NAME_truth`, `NAME_recall`, `NAME_assign`, and NAME for the join.
        stage: of the flow.
        rule: `cosine_from`, `max_edges_per_row` and `threads` count.
        search: the cells, and the recall asked for.
        seed: of every sample.
    """

    name: str
    stage: str
    rule: JoinRule
    search: CellsConfig
    seed: int

    @property
    def cosine_from(self) -> float:
        """The score from which a pair is an edge."""
        assert self.rule.cosine_from is not None, "a join by cells is a join by cosine"
        return self.rule.cosine_from

    def step(
        self, suffix: str, settings: Settings, load: Callable[[Settings], Work[Task]]
    ) -> Step[Settings, Task]:
        """One of the steps."""
        return Step(f"{self.name}{suffix}", 4, settings, load, "task", self.stage, self.rule.threads)


def cell_join(runner: Runner, join: CellJoin, blocks: Sequence[Block]) -> tuple[EdgeFile, ...]:
    """The cosine edges among the rows of all blocks, by global rows.

    Args:
        runner: of the run.
        join: what makes an edge, and how it is searched for.
        blocks: in order; which rows take part.

    Raises:
        ConfigError: the measured recall is under the one that `search` asks for.
    """
    if not blocks:
        return ()
    train = join.step("_cells", TrainSettings(join.search, join.seed), _load_train)
    cells = runner.run_one(train, Item(TrainTask(tuple(blocks))))
    groups = tuple(cells.facts["groups"])
    num_probes = _num_probes(runner, join, blocks, cells)
    assign = join.step("_assign", AssignSettings(num_probes, groups), _load_assign)
    centroids = cells.file(runner.run_dir, TrainedFile.CENTROIDS)
    assigned = runner.run(assign, [Item(AssignTask(block, centroids)) for block in blocks])
    stars = [receipt.file(runner.run_dir, AssignedFile.STARS) for receipt in assigned]
    who = tuple(
        AssignedBlock(
            block,
            rows=receipt.file(runner.run_dir, AssignedFile.ROWS),
            cells=receipt.file(runner.run_dir, AssignedFile.CELLS),
            visits=receipt.file(runner.run_dir, AssignedFile.VISITS),
            starts=receipt.file(runner.run_dir, AssignedFile.STARTS),
        )
        for block, receipt in zip(blocks, assigned, strict=True)
    )
    step = join.step("", GroupSettings(join.cosine_from, join.rule.max_edges_per_row), _load_join)
    items = [Item(GroupTask(who, group, range(*ends))) for group, ends in enumerate(pairwise(groups))]
    joined = [receipt.file(runner.run_dir, EDGES_FILE) for receipt in runner.run(step, items)]
    return tuple(EdgeFile(file, 0, 0) for file in (*stars, *joined))


def _num_probes(runner: Runner, join: CellJoin, blocks: Sequence[Block], cells: Receipt) -> int:
    """How many cells a row visits; measures what is found then."""
    search, run_dir = join.search, runner.run_dir
    max_probes = max(MAX_PROBES, search.num_probes or 0)
    truth = join.step("_truth", TruthSettings(join.cosine_from, max_probes), _load_truth)
    centroids, sample = (cells.file(run_dir, name) for name in (TrainedFile.CENTROIDS, TrainedFile.SAMPLE))
    truths = runner.run(truth, [Item(TruthTask(block, centroids, sample)) for block in blocks])
    settings = RecallSettings(search.num_probes, search.min_recall, max_probes)
    task = RecallTask(
        tuple(receipt.file(run_dir, TRUTH) for receipt in truths),
        num_sampled=cells.facts["num_sampled"],
        num_cells=cells.facts["num_cells"],
    )
    return runner.run_one(join.step(RECALL_SUFFIX, settings, _load_recall), Item(task)).facts["num_probes"]


def _load_train(settings: TrainSettings) -> Work[TrainTask]:
    from pipelines.stages.copies.cell_training import load_train

    return load_train(settings)


def _load_truth(settings: TruthSettings) -> Work[TruthTask]:
    from pipelines.stages.copies.cell_training import load_truth

    return load_truth(settings)


def _load_recall(settings: RecallSettings) -> Work[RecallTask]:
    from pipelines.stages.copies.cell_training import load_recall

    return load_recall(settings)


def _load_assign(settings: AssignSettings) -> Work[AssignTask]:
    from pipelines.stages.copies.cell_groups import load_assign

    return load_assign(settings)


def _load_join(settings: GroupSettings) -> Work[GroupTask]:
    from pipelines.stages.copies.cell_groups import load_group

    return load_group(settings)
