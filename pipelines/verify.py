"""Checks a finished dataset: every hash, count and row that the manifest names."""

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation import storage
from curation.errors import IntegrityError, LvdError
from curation.schema import LINEAGE, REASONS, SELECTION, STAGES
from curation.shard.read import ShardReader, verify_shard
from pipelines.answers import read_manifest

# The counts of a pool that sum up what stages dropped.
COUNTED = {"rejected": ("describe", "judge"), "duplicates": ("dedup",), "contaminated": ("decontaminate",)}


def verify(run_dir: str) -> list[str]:
    """Read everything that the manifest lists.

    Returns:
        What is wrong, a line each; nothing when all is right.

    Raises:
        ConfigError: when there is no finished dataset.
        IntegrityError: when the manifest cannot be understood.
    """
    manifest = read_manifest(run_dir)
    try:
        return _faults(run_dir, manifest)
    except (KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(
            f"{storage.join(run_dir, 'manifest.json')} is no manifest",
            got=repr(error),
            remedy="Run the same config again: it is replaced",
        ) from error


def _faults(run_dir: str, manifest: dict[str, Any]) -> list[str]:
    faults: list[str] = []
    lineage = _tables(run_dir, manifest["lineage"], LINEAGE, faults)
    selection = _tables(run_dir, manifest["selection"], SELECTION, faults)
    if not faults:
        faults += _check_counts(manifest, lineage)
        try:
            faults += _check_selection(run_dir, manifest, lineage, selection)
        except (LvdError, OSError) as error:
            faults.append(str(error))
    for shard in manifest["shards"]:
        path = storage.join(run_dir, shard["path"])
        try:
            verify_shard(path, sha256=shard["sha256"], num_samples=shard["num_samples"])
            if (found := storage.stat(path).num_bytes) != shard["bytes"]:
                faults.append(f"{path} has {found} bytes, the manifest says {shard['bytes']}")
        except (LvdError, OSError) as error:
            faults.append(str(error))
    return faults


def _tables(run_dir: str, entries: list[dict[str, Any]], schema: pa.Schema, faults: list[str]) -> pa.Table:
    tables = [schema.empty_table()]
    for entry in entries:
        path = storage.join(run_dir, entry["path"])
        try:
            sha256, _ = storage.sha256_file(path)
            if sha256 != entry["sha256"]:
                raise IntegrityError(f"{path} has changed", got=sha256, expected=entry["sha256"])
            table = storage.read_table(path)
            if table.num_rows != entry["rows"] or table.schema != schema:
                raise IntegrityError(
                    f"{path} has other rows or columns", got=table.num_rows, expected=entry["rows"]
                )
            tables.append(table)
        except (LvdError, OSError) as error:
            faults.append(str(error))
    return pa.concat_tables(tables)


def _check_counts(manifest: dict[str, Any], lineage: pa.Table) -> list[str]:
    """The funnel must follow from the lineage, row by row, and add up."""
    faults = []
    columns = [lineage[name].to_pylist() for name in ("pool", "decision", "stage", "reason")]
    seen = Counter(zip(*columns, strict=True))
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
        for (_, decision, stage, reason), number in ((key, n) for key, n in seen.items() if key[0] == pool):
            found["images"] += number
            found["retrieved"] += number if decision == "kept" and reason != "curated" else 0
            for name, stages in COUNTED.items():
                found[name] += number if decision == "dropped" and stage in stages else 0
        if manifest["counts"][pool] != found:
            faults.append(f"counts of {pool}: {manifest['counts'][pool]}, but lineage has {found}")
    if manifest["counts"]["dataset"] != sum(left.values()):
        faults.append(
            f"counts: dataset of {manifest['counts']['dataset']}, but lineage has {sum(left.values())}"
        )
    return faults


def _check_selection(
    run_dir: str, manifest: dict[str, Any], lineage: pa.Table, selection: pa.Table
) -> list[str]:
    """Every kept image stands in the selection and in its shard, at its place, once."""
    faults = []
    kept = _places(lineage.filter(pc.equal(lineage["decision"], "kept")))
    chosen = _places(selection)
    if kept != chosen:
        faults.append(f"lineage keeps {kept.total()} images, selection has {chosen.total()}; they differ")
    places = {(row["shard"], row["shard_index"]): row["image_id"] for row in selection.to_pylist()}
    with ShardReader(storage.join(run_dir, manifest["dataset_dir"])) as reader:
        for number, shard in enumerate(manifest["shards"]):
            name = shard["path"].rsplit("/", 1)[-1]
            keys = reader.index(number).keys.to_pylist()
            wrong = [i for i, key in enumerate(keys) if places.pop((name, i), None) != key]
            if wrong:
                faults.append(f"{name}: {len(wrong)} samples are not those that the selection places there")
    if places:
        faults.append(f"{len(places)} selected images are in no shard")
    return faults


def _places(rows: pa.Table) -> Counter[tuple[object, ...]]:
    names = ("pool", "key", "image_id", "shard", "shard_index")
    return Counter(zip(*(rows[name].to_pylist() for name in names), strict=True))
