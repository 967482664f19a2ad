"""Joins rows into edges cell by cell: an approximate join that says how much it finds before it starts.

Cells are trained on sampled rows; other sampled rows are compared with the whole pool exactly, which tells
how many cells a row must visit, and what share of the pairs is found then. Every block of rows is assigned to
its cells, and each group of cells is a unit of work and of resume of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from curation.search.cells_config import MAX_PROBES, CellsConfig
from pipelines.engine.runner import Runner
from pipelines.engine.step import Item, Receipt, Settings, Step, Task, Work
from pipelines.stages.copies.blocks import Block
from pipelines.stages.copies.cell_groups import (
    AssignedBlock,
    AssignedFile,
    AssignSettings,
    AssignTask,
    GroupSettings,
    GroupTask,
    load_assign,
    load_group,
)
from pipelines.stages.copies.cell_training import (
    TRUTH,
    RecallSettings,
    RecallTask,
    TrainedFile,
    TrainSettings,
    TrainTask,
    TruthSettings,
    TruthTask,
    load_recall,
    load_train,
    load_truth,
)
from pipelines.stages.copies.saved_edges import EDGES_FILE, EdgeFile

RECALL_SUFFIX = "_recall"  # of the name of the step that measures it


@dataclass(frozen=True)
class CellJoin:
    """What makes an edge, and how it is searched for."""

    stage: str  # the join is its step STAGE_cell_edges; those before it end in `_cells`, `_truth`, …
    search: CellsConfig  # the cells, and the recall asked for
    cosine_threshold: float
    max_edges_per_row: int | None  # see `curation.search.edges.limit_edges`
    seed: int  # of every sample
    threads: int  # of a worker

    def step(
        self, suffix: str, settings: Settings, load: Callable[[Settings], Work[Task]]
    ) -> Step[Settings, Task]:
        """One of the steps."""
        return Step(f"{self.stage}_cell_edges{suffix}", 4, settings, load, self.stage, self.threads)


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
    train = join.step("_cells", TrainSettings(join.search, join.seed), load_train)
    cells = runner.run_one(train, Item(TrainTask(tuple(blocks))))
    groups = tuple(cells.facts["groups"])
    num_probes = _num_probes(runner, join, blocks, cells)
    assign = join.step("_assign", AssignSettings(num_probes, groups), load_assign)
    centroids = cells.file(runner.run_dir, TrainedFile.CENTROIDS)
    assigned = runner.run(assign, [Item(AssignTask(block, centroids)) for block in blocks])
    stars = [receipt.file(runner.run_dir, AssignedFile.STARS) for receipt in assigned]
    visits = (AssignedFile.ROWS, AssignedFile.CELLS, AssignedFile.VISITS, AssignedFile.STARTS)
    who = tuple(
        AssignedBlock(block, *(receipt.file(runner.run_dir, name) for name in visits))
        for block, receipt in zip(blocks, assigned, strict=True)
    )
    step = join.step("", GroupSettings(join.cosine_threshold, join.max_edges_per_row), load_group)
    items = [Item(GroupTask(who, group, range(*ends))) for group, ends in enumerate(pairwise(groups))]
    joined = [receipt.file(runner.run_dir, EDGES_FILE) for receipt in runner.run(step, items)]
    return tuple(EdgeFile(file) for file in (*stars, *joined))


def _num_probes(runner: Runner, join: CellJoin, blocks: Sequence[Block], cells: Receipt) -> int:
    """How many cells a row visits; measures what is found then."""
    search, run_dir = join.search, runner.run_dir
    max_probes = max(MAX_PROBES, search.num_probes or 0)
    truth = join.step("_truth", TruthSettings(join.cosine_threshold, max_probes), load_truth)
    centroids, sample = (cells.file(run_dir, name) for name in (TrainedFile.CENTROIDS, TrainedFile.SAMPLE))
    truths = runner.run(truth, [Item(TruthTask(block, centroids, sample)) for block in blocks])
    settings = RecallSettings(search.num_probes, search.min_recall, max_probes)
    task = RecallTask(
        tuple(receipt.file(run_dir, TRUTH) for receipt in truths),
        num_sampled=cells.facts["num_sampled"],
        num_cells=cells.facts["num_cells"],
    )
    measured = runner.run_one(join.step(RECALL_SUFFIX, settings, load_recall), Item(task))
    return int(measured.facts["num_probes"])
