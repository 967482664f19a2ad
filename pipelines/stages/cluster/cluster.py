"""cluster: k-means over the surviving pool images; curated images are assigned to the same clusters.

What fits one group of rows and takes minutes is clustered by one task. A larger pool goes through steps of
its own (`kmeans.py`), which give the same bytes and are removed once clusters are published.

What does the work is imported where it is loaded: it brings torch, for which no dry run waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from curation.cluster.config import default_num_clusters
from pipelines.config.run_config import RunConfig
from pipelines.engine.runner import Runner
from pipelines.engine.step import FileRef, Item, Receipt, Step, Work
from pipelines.rows.groups import make_groups
from pipelines.rows.parts import Part
from pipelines.stages.cluster.cluster_tasks import (
    ClusterFile,
    ClusterRowsFile,
    ClusterRowsTask,
    ClusterTask,
    LabelsTask,
    MadeInSteps,
)
from pipelines.stages.cluster.kmeans import KMeansSteps
from pipelines.stages.cluster.training_set import ClusterSettings, Training
from pipelines.stages.copies.decontaminate import Leaks
from pipelines.stages.copies.dedup import Copies


@dataclass(frozen=True)
class Clusters:
    """Centroids, and for every row its survival, its cluster (-1: none) and its closeness to the centroid."""

    alive: FileRef
    cluster: FileRef
    score: FileRef
    centroids: FileRef
    num_clusters: int
    digest: str


def cluster(
    runner: Runner, config: RunConfig, parts: Sequence[Part], copies: Copies, leaks: Leaks
) -> Clusters:
    """Find the concepts of the pool."""
    rule, threads = config.cluster, config.executor.threads
    step = Step("cluster", 3, ClusterSettings(rule, config.seed), _load, "task", "cluster", threads)
    item = Item(ClusterTask(tuple(parts), copies.copies, leaks.leaks))
    num_rows = sum(part.num_rows for part in parts)
    most = rule.num_clusters or default_num_clusters(num_rows)  # fewer where few rows survive
    if runner.has_to_do(step, item) and rule.is_large(num_rows, most):
        receipt = _in_steps(runner, step, item)
    else:
        receipt = runner.run_one(step, item)

    def file(name: ClusterFile) -> FileRef:
        return receipt.file(runner.run_dir, name)

    return Clusters(
        file(ClusterFile.ALIVE),
        file(ClusterFile.CLUSTER),
        file(ClusterFile.SCORE),
        file(ClusterFile.CENTROIDS),
        receipt.facts["num_clusters"],
        receipt.digest,
    )


def _in_steps(runner: Runner, step: Step[ClusterSettings, ClusterTask], item: Item[ClusterTask]) -> Receipt:
    """Do `step` by steps of its own, which are spread over workers and resumed one by one."""
    task, settings, run_dir = item.task, step.settings, runner.run_dir
    rows_step = Step("cluster_rows", 1, settings, _load_rows, "task", "cluster", step.threads)
    rows_item = Item(ClusterRowsTask(task.parts, task.copies, task.leaks))
    [rows] = runner.run_inside(rows_step, [rows_item])
    k, num_rows = rows.facts["num_clusters"], sum(part.num_rows for part in task.parts)
    if not k or not settings.config.is_large(num_rows, k):  # 0: nothing survives
        receipt = runner.run_one(step, item)
        runner.forget(rows_step, [rows_item])
        return receipt
    clustering, trained_on = step.identity(item), rows.file(run_dir, ClusterRowsFile.TRAINED_ON)
    training = Training.on(task.parts, rows.facts["part_rows"], trained_on, digest=clustering, num_clusters=k)
    iterations = KMeansSteps(runner, settings.config, training, seed=settings.seed, threads=step.threads)
    fitted = iterations.run()

    alive, num_gpus = rows.file(run_dir, ClusterRowsFile.ALIVE), int(settings.config.device == "cuda")
    labels_step = Step(
        "cluster_labels", 1, settings, _load_labels, "task", "cluster", step.threads, num_gpus=num_gpus
    )
    all_rows, group_rows = [part.num_rows for part in task.parts], settings.config.rows_of_group(k)
    labels = [
        Item(LabelsTask(clustering, group, alive, fitted.centroids))
        for group in make_groups(task.parts, all_rows, rows=group_rows)
    ]
    with runner.progress.step("cluster_labels", total=len(labels), done=0) as advance:
        found = runner.run_inside(labels_step, labels, advance=advance)
    label, score = (
        tuple(one.file(run_dir, name) for one in found) for name in (ClusterFile.CLUSTER, ClusterFile.SCORE)
    )
    made = MadeInSteps(alive, fitted, label, score, rows.facts["num_trained_on"])
    receipt = runner.run_one(step, replace(item, task=replace(task, made=made)))
    iterations.forget()
    runner.forget(labels_step, labels)
    runner.forget(rows_step, [rows_item])
    return receipt


def _load(settings: ClusterSettings) -> Work[ClusterTask]:
    from pipelines.stages.cluster.rows_to_clusters import load_clusters

    return load_clusters(settings)


def _load_rows(settings: ClusterSettings) -> Work[ClusterRowsTask]:
    from pipelines.stages.cluster.rows_to_clusters import load_rows

    return load_rows(settings)


def _load_labels(settings: ClusterSettings) -> Work[LabelsTask]:
    from pipelines.stages.cluster.rows_to_clusters import load_labels

    return load_labels(settings)
