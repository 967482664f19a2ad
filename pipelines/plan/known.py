"""What a run that has been done tells of a run to be done: its sizes, shares and receipts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc

from curation.schema import Stage
from curation.shard.manifest import Level
from pipelines.config.paths import absolute
from pipelines.config.run_config import RunConfig
from pipelines.engine.runner import Runner
from pipelines.engine.step import Receipt
from pipelines.lvd import Curated
from pipelines.plan.dry_run import DryRun, dry_run
from pipelines.rows.groups import alike_parts
from pipelines.rows.parts import Part, read, read_array
from pipelines.stages.describe.describe import describe_parts
from pipelines.stages.forecast import Shares, Sizes
from pipelines.stages.ingest.ingest import ingest

# Parts whose listing is read to learn how large images are.
MAX_READ = 64


@dataclass(frozen=True)
class KnownRun:
    """A run whose images are described at least: its parts, and the receipts of steps that are done."""

    sizes: Sizes
    parts: tuple[Part, ...]
    receipts: Mapping[str, Sequence[Receipt]]


def known_run(config: RunConfig, dry: DryRun[Curated]) -> KnownRun | None:
    """A run, or as much of it as is done; None where describe has work to do.

    Args:
        config: of the run.
        dry: its whole flow.
    """
    parts = dry.made.parts if dry.made is not None else dry_run(absolute(config), _describe).made
    if parts is None:
        return None
    begun = {state.name for state in dry.runner.states if state.num_done < state.num_items}
    receipts = {name: found for name, found in dry.runner.receipts.items() if name not in begun}
    return KnownRun(known_sizes(config, parts, receipts), parts, receipts)


def _describe(runner: Runner, config: RunConfig, *, refresh: bool) -> tuple[Part, ...]:
    return describe_parts(runner, config, ingest(runner, config, refresh=refresh), refresh=refresh)


def known_sizes(config: RunConfig, parts: Sequence[Part], receipts: Mapping[str, Sequence[Receipt]]) -> Sizes:
    """How large a run is, and what is left on the way as far as its receipts tell.

    Args:
        config: of the run.
        parts: with embeddings.
        receipts: by step.
    """
    images = dict.fromkeys(config.pools, 0)
    for part in parts:
        images[part.pool] += part.num_rows
    shares: dict[str, Any] = {
        "image_bytes": _mean_bytes(parts),
        "embedding_dim": read_array(parts[0].embeddings).shape[1],
        "descriptor_dim": parts[0].descriptors and read_array(parts[0].descriptors).shape[1],
    }
    for receipt in receipts.get("dedup_rows", ()):
        joined = receipt.facts["num_joined"]
        may_enter = sum(n for name, n in images.items() if config.pools[name].may_enter_dataset)
        shares["joined"] = joined / max(may_enter, 1)
        shares["joined_pixels"] = sum(receipt.facts["pixel_counts"]) / max(joined, 1)
    for receipt in receipts.get("decontaminate_rows", ()):
        counts = receipt.facts["pixel_counts"]
        shares["searched_pixels"] = _share_of(counts, parts, config.is_decontaminated)
        shares["holdout_pixels"] = _share_of(counts, parts, lambda name: config.pools[name].role == "holdout")
    for receipt in receipts.get("lineage", ()):
        shares |= _survival(receipt.facts["funnel"], config)
    for receipt in receipts.get("dedup_cell_edges_recall", ()):
        shares["num_probes"] = receipt.facts["num_probes"]
    return Sizes(config, images, Shares(**shares, **_kept(receipts)), alike_parts(parts))


def _kept(receipts: Mapping[str, Sequence[Receipt]]) -> dict[str, float]:
    """What hits come to, and how large the images of the dataset are."""
    found, hits, buckets = {}, receipts.get("retrieve", ()), receipts.get("shard", ())
    if nominal := sum(receipt.facts["nominal"] for receipt in hits):
        found["unique_hits"] = sum(receipt.facts["unique"] for receipt in hits) / nominal
    if kept := sum(sum(receipt.facts["num_samples"]) for receipt in buckets):
        tars = [n for receipt in buckets for name, (n, _) in receipt.files.items() if name.endswith(".tar")]
        found["kept_bytes"] = sum(tars) / kept
    return found


def _share_of(counts: Sequence[int], parts: Sequence[Part], takes: Callable[[str], bool]) -> float:
    """What share of some pools' images is counted."""
    mine = [(num, part.num_rows) for num, part in zip(counts, parts, strict=True) if takes(part.pool)]
    return sum(num for num, _ in mine) / max(sum(rows for _, rows in mine), 1)


def _survival(funnel: Iterable[Level], config: RunConfig) -> dict[str, float]:
    """Shares of what was decoded, and of what was left after decontamination."""

    def count(stage: Stage, end: Literal["in", "out"], *roles: str) -> int:
        mine = [level for level in funnel if level["stage"] == stage]
        return sum(level[end] for level in mine if config.pools[level["pool"]].role in roles)

    every = ("curated", "uncurated", "holdout")
    shares = {"decoded": count("describe", "out", *every) / max(count("describe", "in", *every), 1)}
    for role, field in (("curated", "alive_curated"), ("uncurated", "alive_pool")):
        if came := count("describe", "in", role):
            shares[field] = count("decontaminate", "out", role) / came
    return shares


def _mean_bytes(parts: Sequence[Part]) -> float:
    chosen = np.unique(np.linspace(0, len(parts) - 1, min(len(parts), MAX_READ)).astype(int))
    tables = [read(parts[int(i)].images, ["num_bytes"])["num_bytes"] for i in chosen]
    total, rows = sum(pc.sum(t).as_py() or 0 for t in tables), sum(len(t) for t in tables)
    return max(total / max(rows, 1), 1.0)
