"""One pass over the lineage: samples of every reason, and how large clusters and components are."""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from pipelines.answers.lineage import Lineage
from pipelines.report.pictures import sample
from pipelines.rows.arrow_columns import numbers

Reason = tuple[str, str]  # stage, reason


@dataclass
class Scan:
    """What one pass over the lineage gives."""

    reasons: dict[Reason, Int64[np.ndarray, " k"]] = field(default_factory=dict)  # sampled global rows
    num_by_reason: dict[Reason, int] = field(default_factory=dict)
    pools_by_reason: dict[Reason, dict[str, int]] = field(default_factory=dict)
    cluster_size: Int64[np.ndarray, " c"] = field(default_factory=lambda: np.zeros(0, np.int64))
    cluster_kept: Int64[np.ndarray, " c"] = field(default_factory=lambda: np.zeros(0, np.int64))
    component_size: Int64[np.ndarray, " c"] = field(default_factory=lambda: np.zeros(0, np.int64))


def scan(lineage: Lineage, *, num_samples: int, seed: int) -> Scan:
    """Tally the lineage.

    Args:
        lineage: of the dataset.
        num_samples: rows sampled of every reason of a drop.
        seed: of the samples.
    """
    found = Scan()
    names = ["pool", "decision", "stage", "reason", "component", "cluster"]
    for offset, table in lineage.tables(names):
        kept = pc.equal(table["decision"], "kept").to_numpy()
        _tally_reasons(found, table, offset=offset, kept=kept, num_samples=num_samples, seed=seed)
        cluster, component = numbers(table["cluster"]), numbers(table["component"])
        found.cluster_size = _add_counts(found.cluster_size, cluster)
        found.cluster_kept = _add_counts(found.cluster_kept, cluster[kept])
        found.component_size = _add_counts(found.component_size, component)
    num_clusters = len(found.cluster_size)
    found.cluster_kept = np.pad(found.cluster_kept, (0, num_clusters - len(found.cluster_kept)))
    return found


def _tally_reasons(
    found: Scan, table: pa.Table, *, offset: int, kept: np.ndarray, num_samples: int, seed: int
) -> None:
    groups = table.select(["stage", "reason", "pool"]).append_column(
        "row", pa.array(np.arange(offset, offset + len(table)))
    )
    dropped = groups.filter(pa.array(~kept))
    tally = dropped.group_by(["stage", "reason", "pool"], use_threads=False).aggregate([("row", "list")])
    for entry in tally.to_pylist():
        reason, rows = (entry["stage"], entry["reason"]), np.array(entry["row_list"], np.int64)
        before = found.reasons.get(reason, np.zeros(0, np.int64))
        found.reasons[reason] = sample(np.concatenate([before, rows]), num_samples, seed=seed)
        found.num_by_reason[reason] = found.num_by_reason.get(reason, 0) + len(rows)
        by_pool = found.pools_by_reason.setdefault(reason, {})
        by_pool[entry["pool"]] = by_pool.get(entry["pool"], 0) + len(rows)


def find_members(
    lineage: Lineage, column: str, *, wanted: Collection[int], num_samples: int, seed: int
) -> dict[int, Int64[np.ndarray, " k"]]:
    """Sampled global rows of some components or clusters.

    Args:
        lineage: of the dataset.
        column: `component` or `cluster`.
        wanted: which of them.
        num_samples: rows sampled of each.
        seed: of the samples.
    """
    found = {number: np.zeros(0, np.int64) for number in wanted}
    for offset, table in lineage.tables([column]):
        values = numbers(table[column])
        for number in np.intersect1d(values, np.array(sorted(found), np.int64)).tolist():
            rows = np.flatnonzero(values == number) + offset
            found[number] = sample(np.concatenate([found[number], rows]), num_samples, seed=seed)
    return found


def _add_counts(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    more = np.bincount(values[values >= 0], minlength=len(counts))
    more[: len(counts)] += counts
    return more
