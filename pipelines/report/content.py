"""All that the page says, gathered in the order in which it says it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from curation.shard.manifest import Manifest
from pipelines.answers.finished_run import FinishedRun
from pipelines.report.clusters import ClusterSection, gather_clusters
from pipelines.report.duplicates import Duplicates, gather_duplicates
from pipelines.report.embedder import EmbedderNote, note_embedder
from pipelines.report.faces import Faces, gather_faces
from pipelines.report.filters import FilterView, gather_filters, pictures_of
from pipelines.report.funnel import Lane, draw_funnel
from pipelines.report.leaks import LeakSection, gather_leaks
from pipelines.report.pictures import Picture
from pipelines.report.reasons import NUM_EXAMPLES, Reason, gather_reasons
from pipelines.report.retrieval import Retrieved, gather_retrieval
from pipelines.report.scan import scan
from pipelines.report.timings import StepTiming, gather_timings


@dataclass(frozen=True)
class Content:
    """The sections of the page. What needs intermediate data that is gone is None or empty."""

    manifest: Manifest
    roles: Mapping[str, str]
    pool_counts: Mapping[str, Mapping[str, int]]
    has_steps: bool
    embedder: EmbedderNote
    lanes: Sequence[Lane]
    reasons: Sequence[Reason]
    filters: Sequence[FilterView] | None
    faces: Faces | None
    looked_for_faces: bool
    duplicates: Duplicates
    leaks: LeakSection | None
    retrieval: Retrieved | None
    clusters: ClusterSection | None
    timings: Sequence[StepTiming]
    config_text: str

    def pictures(self) -> list[Picture]:
        """Every picture of the page in its order, as often as it is shown."""
        return [
            *chain.from_iterable(reason.examples for reason in self.reasons),
            *pictures_of(self.filters or ()),
            *(picture for picture, _ in (self.faces.examples if self.faces else ())),
            *self.duplicates.pictures(),
            *(self.leaks.pictures() if self.leaks else []),
            *chain.from_iterable(
                pool.pictures() for pool in (self.retrieval.pools if self.retrieval else ())
            ),
            *(self.clusters.pictures() if self.clusters else []),
        ]


def gather(run: FinishedRun) -> Content:
    """Read a finished run into the sections of its page."""
    manifest, config, made = run.manifest, run.config, run.curated
    seed = int(manifest["seed"])
    lineage = run.lineage
    scanned = scan(lineage, num_samples=NUM_EXAMPLES, seed=seed)
    counts = {pool: count for pool, count in manifest["counts"].items() if pool in config.pools}
    roles = {pool: config.pools[pool].role for pool in counts}
    kept = {pool: count["kept"] for pool, count in counts.items()}
    return Content(
        manifest=manifest,
        roles=roles,
        pool_counts=counts,
        has_steps=made is not None,
        embedder=note_embedder(config.describe),
        lanes=draw_funnel(manifest["funnel"], roles, kept),
        reasons=gather_reasons(lineage, scanned),
        filters=gather_filters(lineage, made, config=config.judge),
        faces=gather_faces(lineage, made, config=config.shard, seed=seed),
        looked_for_faces=config.describe.faces is not None,
        duplicates=gather_duplicates(lineage, scanned, made, config=config.dedup, seed=seed),
        leaks=gather_leaks(lineage, made, seed=seed),
        retrieval=gather_retrieval(lineage, made, pools=config.pools, seed=seed),
        clusters=gather_clusters(lineage, scanned, seed=seed),
        timings=gather_timings(run.receipts),
        config_text=run.config_text,
    )
