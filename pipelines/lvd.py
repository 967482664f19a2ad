"""The flow of `lvd run`, as a table of contents."""

from dataclasses import dataclass

from pipelines.config import RunConfig
from pipelines.made import Made
from pipelines.parts import Part
from pipelines.runner import Runner
from pipelines.stages.cluster import Clusters, cluster
from pipelines.stages.decontaminate import Leaks, decontaminate
from pipelines.stages.dedup import Copies, dedup
from pipelines.stages.describe import describe_parts, judge_parts
from pipelines.stages.hierarchy import Hierarchy, build_hierarchy
from pipelines.stages.ingest import ingest
from pipelines.stages.lineage import write_lineage
from pipelines.stages.pca_hash import hash_descriptors
from pipelines.stages.retrieve import retrieve
from pipelines.stages.score import score_parts
from pipelines.stages.select import Outcomes, select_images
from pipelines.stages.shard import Bucket, shard
from pipelines.step import FileRef, Receipt


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

    def made(self) -> Made:
        """What questions about single images need of it."""
        return Made(
            parts=self.parts,
            copies=self.copies.copies,
            health=self.copies.health,
            leaks=self.leaks.leaks,
            hits=self.hits,
            alive=self.clusters.alive,
            cluster=self.clusters.cluster,
            closeness=self.clusters.score,
        )


def curate(runner: Runner, config: RunConfig, *, refresh: bool) -> Curated:
    """Run every stage; with a runner that has no executor, find what they made."""
    return curate_parts(runner, config, ingest(runner, config, refresh=refresh), refresh=refresh)


def curate_parts(runner: Runner, config: RunConfig, listed: tuple[Part, ...], *, refresh: bool) -> Curated:
    """Run every stage after ingest on the parts that it listed."""
    parts = describe_parts(runner, config, listed, refresh=refresh)
    parts = score_parts(runner, config, parts)
    parts = judge_parts(runner, config, parts)
    parts = hash_descriptors(runner, config, parts)
    copies = dedup(runner, config, parts)
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
