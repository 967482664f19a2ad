"""The flow of `lvd run`, as a table of contents."""

from dataclasses import dataclass

from pipelines.config.run_config import RunConfig
from pipelines.engine.runner import Runner
from pipelines.engine.step import FileRef, Receipt
from pipelines.rows.parts import Part
from pipelines.stages.cluster.cluster import Clusters, cluster
from pipelines.stages.cluster.hierarchy import Hierarchy, build_hierarchy
from pipelines.stages.copies.decontaminate import Leaks, decontaminate
from pipelines.stages.copies.dedup import Copies, dedup
from pipelines.stages.copies.pca_hash import hash_descriptors
from pipelines.stages.describe.describe import describe_parts
from pipelines.stages.describe.judge import judge_parts
from pipelines.stages.describe.score import score_parts
from pipelines.stages.ingest.ingest import ingest
from pipelines.stages.retrieve.retrieve import retrieve
from pipelines.stages.retrieve.select import Outcomes, select_images
from pipelines.stages.shard.lineage import write_lineage
from pipelines.stages.shard.shard import Bucket, shard


@dataclass(frozen=True)
class Curated:
    """What every stage made, in the order of the flow."""

    parts: tuple[Part, ...]
    copies: Copies
    leaks: Leaks
    clusters: Clusters
    hierarchy: Hierarchy
    hits: dict[str, FileRef]  # by curated pool
    outcomes: Outcomes
    buckets: list[Bucket]
    lineage: Receipt


def curate(runner: Runner, config: RunConfig, *, refresh: bool) -> Curated:
    """Run every stage; with a runner that has no executor, find what they made."""
    return curate_parts(runner, config, ingest(runner, config, refresh=refresh), refresh=refresh)


def curate_parts(runner: Runner, config: RunConfig, listed: tuple[Part, ...], *, refresh: bool) -> Curated:
    """Run every stage after ingest on the parts that it listed."""
    parts, copies = find_copies(runner, config, listed, refresh=refresh)
    leaks = decontaminate(runner, config, parts, copies)
    clusters = cluster(runner, config, parts, copies, leaks)
    hierarchy = build_hierarchy(runner, config, parts, clusters)
    hits = retrieve(runner, config, parts, clusters)
    outcomes = select_images(runner, config, parts, clusters=clusters, hierarchy=hierarchy, hits=hits)
    buckets = shard(runner, config, parts, clusters=clusters, outcomes=outcomes, refresh=refresh)
    lineage = write_lineage(
        runner,
        config,
        parts,
        copies=copies,
        leaks=leaks,
        clusters=clusters,
        outcomes=outcomes,
        buckets=buckets,
    )
    return Curated(parts, copies, leaks, clusters, hierarchy, hits, outcomes, buckets, lineage)


def find_copies(
    runner: Runner, config: RunConfig, listed: tuple[Part, ...], *, refresh: bool
) -> tuple[tuple[Part, ...], Copies]:
    """The flow as far as dedup: the parts with all that was measured of them, and which images are copies."""
    parts = describe_parts(runner, config, listed, refresh=refresh)
    parts = score_parts(runner, config, parts)
    parts = judge_parts(runner, config, parts)
    parts = hash_descriptors(runner, config, parts)
    return parts, dedup(runner, config, parts)
