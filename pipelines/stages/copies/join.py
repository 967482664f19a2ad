"""Joins blocks of rows into edges: each pair of blocks is a unit of work and of resume of its own."""

from collections.abc import Sequence

from pipelines.engine.runner import Runner
from pipelines.engine.step import Item, Step, Work
from pipelines.stages.copies.blocks import Block
from pipelines.stages.copies.edge_files import EDGES_FILE, EdgeFile
from pipelines.stages.copies.join_rule import JoinRule, JoinTask


def join(
    runner: Runner, name: str, stage: str, pairs: Sequence[tuple[Block, Block]], rule: JoinRule
) -> tuple[EdgeFile, ...]:
    """The edges of every pair of blocks: row `a` of the left block and `b` of the right."""
    num_gpus = int(rule.backend == "cuda" and rule.cosine_from is not None)
    step = Step(name, 4, rule, _load, "task", stage, rule.threads, num_gpus=num_gpus)
    items = [Item(JoinTask(left, right, left is right)) for left, right in pairs]
    files = [receipt.file(runner.run_dir, EDGES_FILE) for receipt in runner.run(step, items)]
    return tuple(
        EdgeFile(file, left.first_row, right.first_row)
        for file, (left, right) in zip(files, pairs, strict=True)
    )


def _load(rule: JoinRule) -> Work[JoinTask]:
    from pipelines.stages.copies.block_pairs import load_join  # torch: seconds, which no dry run waits for

    return load_join(rule)
