"""What a run that has been done tells of a run to be done: its sizes, shares and receipts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

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
    """The sizes of a run, or of as much of it as is done.

    Args:
        config: of the run.
        parts: with embeddings.
        receipts: by step.
    """
    images = dict.fromkeys(config.pools, 0)
    for part in parts:
        images[part.pool] += part.num_rows
    return Sizes(config, images, _shares(config, parts, receipts, images), alike_parts(parts))


def _shares(
    config: RunConfig,
    parts: Sequence[Part],
    receipts: Mapping[str, Sequence[Receipt]],
    images: Mapping[str, int],
) -> Shares:
    first = parts[0]
    values = {
        "image_bytes": _mean_bytes(parts),
        "embedding_dim": read_array(first.embeddings).shape[1],
        "descriptor_dim": None if first.descriptors is None else read_array(first.descriptors).shape[1],
    }
    if "dedup_rows" in receipts:
        joined = receipts["dedup_rows"][0].facts["num_joined"]
        searched = sum(n for name, n in images.items() if config.pools[name].may_enter_dataset)
        values["joined"] = joined / max(searched, 1)
        values["joined_pixels"] = sum(receipts["dedup_rows"][0].facts["pixel_counts"]) / max(joined, 1)
    if "decontaminate_rows" in receipts:
        counts = receipts["decontaminate_rows"][0].facts["pixel_counts"]
        holdout = [config.pools[part.pool].role == "holdout" for part in parts]
        asked = [config.is_decontaminated(part.pool) for part in parts]
        values["holdout_pixels"] = _share_of(counts, parts, holdout)
        values["searched_pixels"] = _share_of(counts, parts, asked)
    if "lineage" in receipts:
        values |= _survival(receipts["lineage"][0].facts["funnel"], config)
    nominal, unique = (_sum(receipts.get("retrieve", ()), name) for name in ("nominal", "unique"))
    if nominal:
        values["unique_hits"] = unique / nominal
    kept = sum(sum(receipt.facts["num_samples"]) for receipt in receipts.get("shard", ()))
    if kept:
        tars = [n for r in receipts["shard"] for name, (n, _) in r.files.items() if name.endswith(".tar")]
        values["kept_bytes"] = sum(tars) / kept
    for receipt in receipts.get("dedup_cell_edges_recall", ()):
        values["num_probes"] = receipt.facts["num_probes"]
    return Shares(**values)


def _share_of(counts: Sequence[int], parts: Sequence[Part], takes: Sequence[bool]) -> float:
    """What share of some parts' images is counted."""
    mine = [(num, part.num_rows) for num, part, take in zip(counts, parts, takes, strict=True) if take]
    return sum(num for num, _ in mine) / max(sum(rows for _, rows in mine), 1)


def _survival(funnel: Iterable[Mapping[str, object]], config: RunConfig) -> dict[str, float]:
    """Shares of what was decoded, and of what was left after decontamination."""
    num: dict[tuple[str, str], int] = {}
    for level in funnel:
        role = config.pools[str(level["pool"])].role
        for key, stage in (("in", "describe"), ("out", "describe"), ("out", "decontaminate")):
            if level["stage"] == stage:
                name = f"{stage} {key}"
                num[role, name] = num.get((role, name), 0) + int(str(level[key]))
    total = sum(n for (_, name), n in num.items() if name == "describe in")
    decoded = sum(n for (_, name), n in num.items() if name == "describe out")
    shares = {"decoded": decoded / max(total, 1)}
    for role, field in (("curated", "alive_curated"), ("uncurated", "alive_pool")):
        if came := num.get((role, "describe in"), 0):
            shares[field] = num[role, "decontaminate out"] / came
    return shares


def _mean_bytes(parts: Sequence[Part]) -> float:
    chosen = np.unique(np.linspace(0, len(parts) - 1, min(len(parts), MAX_READ)).astype(int))
    tables = [read(parts[int(i)].images, ["num_bytes"])["num_bytes"] for i in chosen]
    total, rows = sum(pc.sum(t).as_py() or 0 for t in tables), sum(len(t) for t in tables)
    return max(total / max(rows, 1), 1.0)


def _sum(receipts: Iterable[Receipt], fact: str) -> int:
    return sum(int(receipt.facts.get(fact, 0)) for receipt in receipts)
