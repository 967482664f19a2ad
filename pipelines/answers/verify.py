"""Checks a finished dataset: every hash, count and row that the manifest names."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation import storage
from curation.disk_errors import sentence_of
from curation.errors import IntegrityError, LvdError
from curation.schema import LINEAGE, REASONS, SELECTION, STAGES
from curation.shard.manifest import Entry, Manifest
from curation.shard.read import ShardReader, verify_shard
from pipelines.answers.finished_run import FinishedRun, require_run
from pipelines.config.listed import proven

# The counts of a pool that sum up what stages dropped.
COUNTED = {"rejected": ("describe", "judge"), "duplicates": ("dedup",), "contaminated": ("decontaminate",)}

_VERDICT = ["pool", "decision", "stage", "reason"]
_PLACE = ["shard", "shard_index", "image_id", "pool", "key"]
_NO_PLACES = pa.schema([SELECTION.field(name).with_nullable(True) for name in _PLACE]).empty_table()


def verify(run_dir: str) -> list[str]:
    """Read everything that the manifest lists.

    Returns:
        What is wrong, a line each; nothing when all is right.

    Raises:
        ConfigError: when there is no finished dataset.
        IntegrityError: when the manifest cannot be understood.
    """
    run = require_run(run_dir)
    try:
        return _faults(run)
    except (KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(
            f"{storage.join(run_dir, 'manifest.json')} is no manifest",
            got=repr(error),
            remedy="Run the same config again: it is replaced",
        ) from error


def _faults(run: FinishedRun) -> list[str]:
    manifest, faults = run.manifest, list[str]()
    seen: Counter[tuple[str, ...]] = Counter()
    kept, chosen = [_NO_PLACES], [_NO_PLACES]
    for table in _tables(run, "lineage", LINEAGE, faults):
        seen += _tally(table)
        kept.append(_places(table.filter(pc.equal(table["decision"], "kept"))))
    chosen += (_places(table) for table in _tables(run, "selection", SELECTION, faults))
    if not faults:
        faults += _check_counts(manifest, seen)
        faults += _check_selection(run, pa.concat_tables(kept), pa.concat_tables(chosen))
    for shard in manifest["shards"]:
        with _noting(faults):
            path = storage.join(run.run_dir, shard["path"])
            verify_shard(path, sha256=shard["sha256"], num_samples=shard["num_samples"])
            _check_size(path, shard)
    # Neither table nor shard: indexes, the config, the report. Earlier versions listed none.
    for entry in manifest.get("files", []):
        with _noting(faults):
            _check_size(proven(run.run_dir, entry, anew=True), entry)
    return faults


@contextmanager
def _noting(faults: list[str]) -> Iterator[None]:
    """What is found to be wrong with a file goes to `faults`."""
    try:
        yield
    except (LvdError, OSError) as error:
        faults.append(sentence_of(error))


def _check_size(path: str, entry: Entry) -> None:
    if (found := storage.stat(path).num_bytes) != entry["bytes"]:
        raise IntegrityError(f"{path} is not as long as listed", got=found, expected=entry["bytes"])


def _tables(
    run: FinishedRun, kind: Literal["lineage", "selection"], schema: pa.Schema, faults: list[str]
) -> Iterator[pa.Table]:
    """The tables that the manifest lists, one at a time; what is wrong with one goes to `faults`."""
    for entry in run.manifest[kind]:
        try:
            path = proven(run.run_dir, entry, anew=True)
            table = storage.read_table(path)
            if table.num_rows != entry["rows"] or table.schema != schema:
                raise IntegrityError(
                    f"{path} has other rows or columns", got=table.num_rows, expected=entry["rows"]
                )
        except (LvdError, OSError) as error:
            faults.append(sentence_of(error))
        else:
            yield table


def _tally(lineage: pa.Table) -> Counter[tuple[str, ...]]:
    """How many rows have each (pool, decision, stage, reason)."""
    counts = lineage.group_by(_VERDICT, use_threads=False).aggregate([([], "count_all")])
    keys = zip(*(counts[name].to_pylist() for name in _VERDICT), strict=True)
    return Counter(dict(zip(keys, counts["count_all"].to_pylist(), strict=True)))


def _check_counts(manifest: Manifest, seen: Counter[tuple[str, ...]]) -> list[str]:
    """The funnel must follow from the lineage, row by row, and add up."""
    faults = []
    pools = [pool for pool in manifest["counts"] if pool != "dataset"]
    left = {pool: sum(n for key, n in seen.items() if key[0] == pool) for pool in pools}
    levels = [(level["pool"], level["stage"]) for level in manifest["funnel"]]
    if levels != [(pool, stage) for pool in pools for stage in STAGES]:
        faults.append(f"the funnel has other pools and stages than a run: {levels}")
    for level in manifest["funnel"]:
        pool, stage = level["pool"], level["stage"]
        tally = {reason: seen[pool, "dropped", stage, reason] for reason in REASONS[stage]}
        dropped = {reason: number for reason, number in tally.items() if number}
        if (level["in"], level["dropped"]) != (left[pool], dropped):
            faults.append(f"funnel of {pool} at {stage}: {level}, but lineage has {left[pool]} in, {dropped}")
        if level["in"] != level["out"] + sum(level["dropped"].values()):
            faults.append(f"funnel of {pool} at {stage} does not add up: {level}")
        left[pool] -= sum(dropped.values())
    for pool, kept in left.items():
        found = {"images": 0, **dict.fromkeys(COUNTED, 0), "retrieved": 0, "kept": kept}
        for (_, decision, by, reason), number in ((key, n) for key, n in seen.items() if key[0] == pool):
            found["images"] += number
            found["retrieved"] += number if decision == "kept" and reason != "curated" else 0
            for name, stages in COUNTED.items():
                found[name] += number if decision == "dropped" and by in stages else 0
        if manifest["counts"][pool] != found:
            faults.append(f"counts of {pool}: {manifest['counts'][pool]}, but lineage has {found}")
    if manifest["counts"]["dataset"] != sum(left.values()):
        faults.append(
            f"counts: dataset of {manifest['counts']['dataset']}, but lineage has {sum(left.values())}"
        )
    return faults


def _check_selection(run: FinishedRun, kept: pa.Table, chosen: pa.Table) -> list[str]:
    """Every kept image stands in the selection and in its shard, at its place, once."""
    faults: list[str] = []
    kept, chosen = (table.sort_by([(name, "ascending") for name in _PLACE]) for table in (kept, chosen))
    if not kept.equals(chosen):
        faults.append(f"lineage keeps {kept.num_rows} images, selection has {chosen.num_rows}; they differ")
    with _noting(faults), ShardReader(run.dataset_dir) as reader:
        listed = [(s.name, s.num_samples, s.num_bytes, s.sha256) for s in reader.shards]
        named = [(_name(s), s["num_samples"], s["bytes"], s["sha256"]) for s in run.manifest["shards"]]
        if listed != named:
            raise IntegrityError(f"{run.dataset_dir}/index.json lists other shards than manifest.json")
        faults += _check_shards(reader, chosen)
    return faults


def _check_shards(reader: ShardReader, chosen: pa.Table) -> list[str]:
    """The samples of every shard are those that the selection, sorted by place, has there."""
    faults = []
    names = chosen["shard"].combine_chunks().dictionary_encode()
    starts = np.searchsorted(names.indices.to_numpy(), np.arange(len(names.dictionary) + 1)).tolist()
    spans = dict(zip(names.dictionary.to_pylist(), pairwise(starts), strict=True))
    num_left = 0
    for number, shard in enumerate(reader.shards):
        start, stop = spans.pop(shard.name, (0, 0))
        rows = chosen.slice(start, stop - start)
        places = dict(zip(rows["shard_index"].to_pylist(), rows["image_id"].to_pylist(), strict=True))
        try:
            keys = reader.index(number).keys.to_pylist()
        except (LvdError, OSError) as error:
            faults.append(sentence_of(error))
            continue
        except (ValueError, LookupError, AttributeError, pa.ArrowException) as error:
            faults.append(f"{shard.index_path} is no index of a shard: {error!r}")
            continue
        wrong = [i for i, key in enumerate(keys) if places.pop(i, None) != key]
        if wrong:
            faults.append(f"{shard.name}: {len(wrong)} samples are not those that the selection places there")
        num_left += len(places)
    num_left += sum(stop - start for start, stop in spans.values())
    if num_left:
        faults.append(f"{num_left} selected images are in no shard")
    return faults


def _name(shard: Entry) -> str:
    path: str = shard["path"]
    return path.rsplit("/", 1)[-1]


def _places(rows: pa.Table) -> pa.Table:
    return rows.select(_PLACE).cast(_NO_PLACES.schema)
