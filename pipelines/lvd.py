"""The flow of `lvd run`, as a table of contents."""

from typing import Any

from pipelines.config import RunConfig
from pipelines.runner import Runner
from pipelines.stages.cluster import cluster
from pipelines.stages.dataset import publish_dataset
from pipelines.stages.decontaminate import decontaminate
from pipelines.stages.dedup import dedup
from pipelines.stages.describe import describe_parts, judge_parts
from pipelines.stages.ingest import ingest
from pipelines.stages.retrieve import retrieve
from pipelines.stages.select import select_images
from pipelines.stages.shard import shard

# The steps in the order of the flow; `plan` names those that cannot be counted yet.
STEP_NAMES = (
    "ingest",
    "describe",
    "judge",
    "dedup_rows",
    "dedup_edges",
    "dedup_components",
    "decontaminate_rows",
    "decontaminate_edges",
    "decontaminate_leaks",
    "cluster",
    "retrieve",
    "select",
    "shard",
    "lineage",
)


def curate(runner: Runner, config: RunConfig, *, refresh: bool) -> dict[str, Any]:
    """Run every stage; returns the manifest."""
    parts = ingest(runner, config, refresh=refresh)
    parts = describe_parts(runner, config, parts, refresh=refresh)
    parts = judge_parts(runner, config, parts)
    copies = dedup(runner, config, parts)
    leaks = decontaminate(runner, config, parts, copies)
    clusters = cluster(runner, config, parts, copies, leaks)
    hits = retrieve(runner, config, parts, clusters)
    outcomes = select_images(runner, config, parts, clusters, hits)
    buckets = shard(runner, config, parts, clusters, outcomes)
    return publish_dataset(
        runner,
        config,
        parts,
        copies=copies,
        leaks=leaks,
        clusters=clusters,
        outcomes=outcomes,
        buckets=buckets,
    )
