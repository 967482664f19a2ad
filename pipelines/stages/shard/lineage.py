"""lineage: the verdicts of all stages become one row for every image that ever came in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int8, Int32, Int64

from curation import storage
from curation.schema import LINEAGE, REASONS, SELECTION, STAGES, image_id
from curation.select import OUTCOMES
from curation.shard.layout import shard_name
from curation.shard.manifest import Level
from pipelines.config.run_config import RunConfig
from pipelines.engine.runner import Runner
from pipelines.engine.step import Attempt, Facts, FileRef, Item, Receipt, Step, Work
from pipelines.rows.parts import Part, PlacesOf, column, read, read_array, roles, row_table
from pipelines.stages.cluster.cluster import Clusters
from pipelines.stages.copies.decontaminate import Leaks
from pipelines.stages.copies.dedup import Copies, read_copies
from pipelines.stages.retrieve.select import Outcomes, origin_of
from pipelines.stages.shard.shard import CHANGED, UNREADABLE, Bucket

# (stage, reason) of every code in `Verdicts.code`; code 0 is no verdict yet.
_DROPS = [(stage, reason) for stage in STAGES for reason in REASONS[stage]]
_KEEPS = [(o.stage, o.reason) for o in OUTCOMES if o is not None and o.origin is not None]
VERDICTS: list[tuple[str, str] | None] = [None, *_DROPS, *_KEEPS]
CODES = {verdict: code for code, verdict in enumerate(VERDICTS) if verdict is not None}
FIRST_KEPT = 1 + len(_DROPS)


def table_file(kind: Literal["lineage", "selection"], number: int) -> str:
    """The name of a part's table."""
    return f"{kind}-{number:06d}.parquet"


@dataclass(frozen=True)
class LineageSettings:
    """How a lineage names things."""

    name: str  # of the dataset: its shards are named by it
    pools: tuple[str, ...]  # in order


@dataclass(frozen=True)
class LineageTask:
    """All images, and what every stage has said of them."""

    parts: Annotated[tuple[Part, ...], PlacesOf("images", "described", "verdicts")]
    copies: FileRef
    leaks: FileRef
    cluster: FileRef
    outcomes: Outcomes
    placed: tuple[FileRef, ...]  # of every bucket


@dataclass(frozen=True)
class Verdicts:
    """What became of every global row."""

    code: Int8[np.ndarray, " n"]  # index into VERDICTS
    by: Int64[np.ndarray, " n"]  # global row of the cause; -1: none
    score: Float64[np.ndarray, " n"]  # NaN: none
    component: Int64[np.ndarray, " n"]  # -1: none
    outcome: Int8[np.ndarray, " n"]
    cluster: Int32[np.ndarray, " n"]
    shard: Int32[np.ndarray, " n"]  # -1: none
    position: Int32[np.ndarray, " n"]


def write_lineage(
    runner: Runner,
    config: RunConfig,
    parts: Sequence[Part],
    *,
    copies: Copies,
    leaks: Leaks,
    clusters: Clusters,
    outcomes: Outcomes,
    buckets: Sequence[Bucket],
) -> Receipt:
    """One file of lineage and one of selection for every part, and the counts of both."""
    task = LineageTask(
        tuple(parts),
        copies.copies,
        leaks.leaks,
        clusters.cluster,
        outcomes,
        tuple(bucket.placed for bucket in buckets),
    )
    settings = LineageSettings(config.name, tuple(config.pools))
    return runner.run_one(Step("lineage", 2, settings, _load, "shard"), Item(task))


def _load(settings: LineageSettings) -> Work[LineageTask]:
    name, pools = settings.name, settings.pools

    def work(attempt: Attempt[LineageTask]) -> Facts:
        parts = attempt.task.parts
        found = gather_verdicts(attempt.task)
        causes = np.unique(found.by[found.by >= 0])
        cause_names = row_table(parts, causes)
        tally: dict[tuple[str, int], int] = {}
        examples: dict[str, dict[str, str]] = {pool: {} for pool in pools}
        num_selected = []
        for part in parts:
            cut = slice(part.offset, part.offset + part.num_rows)
            lineage = _lineage(part, found, causes=causes, cause_names=cause_names, name=name)
            storage.write_table(attempt.out / table_file("lineage", part.number), lineage)
            selection = _selection(lineage, found.outcome[cut])
            storage.write_table(attempt.out / table_file("selection", part.number), selection)
            num_selected.append(selection.num_rows)
            codes = np.unique(found.code[cut], return_index=True, return_counts=True)
            for code, first, count in zip(*(values.tolist() for values in codes), strict=True):
                tally[part.pool, code] = tally.get((part.pool, code), 0) + count
                stage, reason = VERDICTS[code] or ("", "")
                examples[part.pool].setdefault(f"{stage}.{reason}", lineage["key"][first].as_py())
        retrieved = {
            pool: sum(tally.get((pool, CODES[v]), 0) for v in _KEEPS if v[1] != "curated") for pool in pools
        }
        return {
            "funnel": funnel(tally, pools),
            "counts": counts(tally, pools, retrieved),
            "examples": examples,
            "num_selected": num_selected,
            "num_lineage": [part.num_rows for part in parts],
        }

    return work


def gather_verdicts(task: LineageTask) -> Verdicts:
    """Every stage's verdict, the later ones where no earlier one fell.

    A leak outranks a copy: where an image is both, its lineage names the evaluation image, since that is the
    verdict that somebody will audit.
    """
    outcomes = task.outcomes
    outcome = np.asarray(read_array(outcomes.outcome))
    of_outcome = [0 if o is None else CODES[o.stage, o.reason] for o in OUTCOMES]
    shard, position = _places(task.placed, len(outcome))
    found = Verdicts(
        code=np.array(of_outcome, np.int8)[outcome],
        by=np.array(read_array(outcomes.by)),
        score=np.array(read_array(outcomes.score)),
        component=np.full(len(outcome), -1, np.int64),
        outcome=outcome,
        cluster=np.asarray(read_array(task.cluster)),
        shard=shard,
        position=position,
    )
    _mark_copies(found, task.copies)
    _mark_leaks(found, task.leaks)
    found.code[roles(task.parts, "holdout")] = CODES["select", "holdout"]
    _mark_rejected(found, task.parts)
    for why, reason in ((CHANGED, "source_changed"), (UNREADABLE, "unreadable")):
        found.code[(shard < 0) & (position == why)] = CODES["shard", reason]
    position[shard < 0] = -1
    assert (found.code > 0).all(), "a row without a verdict"
    return found


def _mark_copies(found: Verdicts, file: FileRef) -> None:
    copies = read_copies(file)
    rows = copies["row"].to_numpy()
    found.component[rows] = copies["component"].to_numpy()
    copied = copies["reason"].is_valid().to_numpy()
    reasons = [CODES["dedup", reason] for reason in copies["reason"].drop_null().to_pylist()]
    found.code[rows[copied]] = np.array(reasons, np.int8)
    found.by[rows[copied]] = copies["representative"].to_numpy()[copied]
    found.score[rows[copied]] = copies["score"].to_numpy()[copied]


def _mark_leaks(found: Verdicts, file: FileRef) -> None:
    leaks = read(file)
    rows = leaks["row"].to_numpy()
    found.code[rows] = CODES["decontaminate", "leaks_holdout"]
    found.by[rows], found.score[rows] = leaks["holdout"].to_numpy(), leaks["score"].to_numpy()


def _mark_rejected(found: Verdicts, parts: Sequence[Part]) -> None:
    """What judge or describe has dropped; describe was first."""
    for stage, file in (("judge", "verdicts"), ("describe", "described")):
        reason = column(parts, file, "reason").combine_chunks().dictionary_encode()
        names = np.array([CODES[stage, name] for name in reason.dictionary.to_pylist()], np.int8)
        hit = np.flatnonzero(reason.is_valid().to_numpy(zero_copy_only=False))
        found.code[hit] = names[reason.indices.drop_null().to_numpy()]
        found.by[hit], found.score[hit] = -1, np.nan


def _places(placed: Sequence[FileRef], num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Shard number and position of every row; both -1 in none, position the cause where it was lost."""
    shard, position = np.full(num_rows, -1, np.int32), np.full(num_rows, -1, np.int32)
    first = 0
    for file in placed:
        table = read(file)
        rows, number = table["row"].to_numpy(), table["shard"].to_numpy()
        written = number >= 0
        shard[rows[written]] = number[written] + first
        position[rows] = table["position"].to_numpy()
        first += int(number.max(initial=-1)) + 1  # no shard is empty
    return shard, position


def _lineage(
    part: Part, found: Verdicts, *, causes: np.ndarray, cause_names: pa.Table, name: str
) -> pa.Table:
    cut = slice(part.offset, part.offset + part.num_rows)
    code, by, score = found.code[cut], found.by[cut], found.score[cut]
    images = read(part.images, ["key", "uri"])
    described = read(part.described, ["sha256", "width", "height", "format"])
    cause = pa.array(np.searchsorted(causes, by), mask=by < 0)
    shard = found.shard[cut]
    verdicts = [verdict for verdict in (VERDICTS[c] for c in code) if verdict is not None]
    columns = {
        "pool": pa.array([part.pool] * part.num_rows, pa.string()),
        "key": images["key"],
        "uri": images["uri"],
        "image_id": pa.array([s and image_id(s) for s in described["sha256"].to_pylist()], pa.string()),
        "width": described["width"],
        "height": described["height"],
        "format": described["format"],
        "decision": pa.array(np.where(code >= FIRST_KEPT, "kept", "dropped").tolist(), pa.string()),
        "stage": pa.array([stage for stage, _ in verdicts], pa.string()),
        "reason": pa.array([reason for _, reason in verdicts], pa.string()),
        "by_pool": cause_names["pool"].take(cause),
        "by_key": cause_names["key"].take(cause),
        "score": pa.array(score, mask=np.isnan(score)),
        "component": pa.array(found.component[cut], mask=found.component[cut] < 0),
        "cluster": pa.array(found.cluster[cut], pa.int32(), mask=found.cluster[cut] < 0),
        "shard": pa.array([shard_name(name, n) if n >= 0 else None for n in shard.tolist()], pa.string()),
        "shard_index": pa.array(found.position[cut], pa.int32(), mask=shard < 0),
    }
    return pa.table(columns, schema=LINEAGE).combine_chunks()


def _selection(lineage: pa.Table, outcome: np.ndarray) -> pa.Table:
    kept = pa.array(np.array(lineage["decision"].to_pylist(), object) == "kept")
    rows = lineage.filter(kept)
    origins = [origin_of(int(code)) for code in outcome[kept.to_numpy(zero_copy_only=False)]]
    rows = rows.append_column("origin", pa.array(origins, pa.string()))
    return pa.table({field.name: rows[field.name] for field in SELECTION}, schema=SELECTION)


def funnel(tally: Mapping[tuple[str, int], int], pools: Sequence[str]) -> list[Level]:
    """For every pool and stage: rows in, rows out, and what each reason took."""
    levels: list[Level] = []
    for pool in pools:
        left = sum(count for (name, _), count in tally.items() if name == pool)
        for stage in STAGES:
            dropped = {
                reason: tally[pool, CODES[stage, reason]]
                for reason in REASONS[stage]
                if (pool, CODES[stage, reason]) in tally
            }
            out = left - sum(dropped.values())
            levels.append({"stage": stage, "pool": pool, "in": left, "out": out, "dropped": dropped})
            left = out
    return levels


def counts(
    tally: Mapping[tuple[str, int], int], pools: Sequence[str], retrieved: Mapping[str, int]
) -> dict[str, object]:
    """The counts of `manifest.json`."""

    def total(pool: str, *stages: str) -> int:
        return sum(
            count
            for (name, code), count in tally.items()
            if name == pool and code < FIRST_KEPT and _DROPS[code - 1][0] in stages
        )

    found: dict[str, Any] = {}
    for pool in pools:
        found[pool] = {
            "images": sum(count for (name, _), count in tally.items() if name == pool),
            "rejected": total(pool, "describe", "judge"),
            "duplicates": total(pool, "dedup"),
            "contaminated": total(pool, "decontaminate"),
            "retrieved": retrieved[pool],
            "kept": sum(
                count for (name, code), count in tally.items() if name == pool and code >= FIRST_KEPT
            ),
        }
    found["dataset"] = sum(pool["kept"] for pool in found.values())
    return found
