"""dataset: everything is linked into one folder, and `manifest.json` is replaced, last."""

import importlib.metadata
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from curation import storage
from curation.shard.layout import shard_name
from curation.shard.sample import INDEX, index_name
from curation.shard.write import ShardReceipt, index_json
from pipelines.config import RunConfig, config_sha256
from pipelines.parts import check_file
from pipelines.runner import Runner
from pipelines.stages.cell_join import RECALL_SUFFIX
from pipelines.stages.losses import as_data, find_losses
from pipelines.stages.shard import Bucket
from pipelines.step import FileRef, Receipt, digest_of

MANIFEST_SCHEMA = 1


def publish_dataset(
    runner: Runner, config: RunConfig, *, lineage: Receipt, buckets: Sequence[Bucket]
) -> dict[str, Any]:
    """Assemble `dataset-<identity>/` and replace the manifest; returns the manifest."""
    shards = [ref for bucket in buckets for ref in bucket.shards]
    identity = digest_of(config.name, lineage.digest, [ref.sha256 for ref in shards])
    folder = f"dataset-{identity}"
    manifest = {
        "schema": MANIFEST_SCHEMA,
        "name": config.name,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "config_sha256": config_sha256(config),
        "code_version": importlib.metadata.version("lvd"),
        "seed": config.seed,
        **completeness(runner, lineage),
        "dataset_dir": folder,
        "lineage": _link_tables(runner.run_dir, folder, lineage, "lineage"),
        "selection": _link_tables(runner.run_dir, folder, lineage, "selection"),
        "counts": lineage.facts["counts"],
        "funnel": lineage.facts["funnel"],
        "losses": as_data(find_losses(lineage.facts["funnel"], lineage.facts["examples"])),
        "recall": measured_recalls(runner),
        "edges_dropped": num_edges_dropped(runner),
        "shards": _link_shards(runner.run_dir, folder, config.name, buckets),
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    storage.publish_bytes(storage.join(runner.run_dir, "manifest.json"), text.encode(), replace=True)
    return manifest


def report_path(run_dir: str, manifest: Mapping[str, Any]) -> str:
    """Where the report of a dataset lies."""
    return storage.join(run_dir, manifest["dataset_dir"], "report.html")


def completeness(runner: Runner, lineage: Receipt) -> dict[str, Any]:
    """Whether everything could be read, what could not, and what was odd about the rest."""
    unread, notes = _findings(runner, "unread"), _findings(runner, "notes")
    for level in lineage.facts["funnel"]:
        unread += [
            {
                "path": f"pool {level['pool']}",
                "what": reason,
                "detail": f"{level['dropped'][reason]} images at {level['stage']}",
                "offset": None,
            }
            for reason in ("unreadable", "source_changed")
            if reason in level["dropped"]
        ]
    return {"complete": not unread, "unread": unread, "notes": notes}


def _findings(runner: Runner, kind: Literal["unread", "notes"]) -> list[dict[str, Any]]:
    """What listings found; once, where two pools list the same source."""
    listings = {receipt.identity: receipt for receipt in runner.receipts["ingest"]}
    return [problem for receipt in listings.values() for problem in receipt.facts[kind]]


def measured_recalls(runner: Runner) -> list[dict[str, Any]]:
    """What share of what is there each approximate search finds, as measured; empty where all are exact."""
    said = ("pool", "index", "num_cells", "num_probes")
    return [
        {"step": name.removesuffix(RECALL_SUFFIX), **receipt.facts["recall"]}
        | {key: receipt.facts[key] for key in said if key in receipt.facts}
        for name, receipts in runner.receipts.items()
        for receipt in receipts
        if "recall" in receipt.facts
    ]


def num_edges_dropped(runner: Runner, *, by_joins: bool = False) -> int:
    """Edges of all kinds that `dedup.max_edges_per_row` let go.

    Joins drop of what is saved, from `edge_floor` on, pair of blocks by pair of blocks; what decides drops of
    their union what lies above the thresholds. So with a lower floor the number depends on the blocks.

    Args:
        runner: with the receipts of dedup.
        by_joins: count those of joins alone.
    """
    return sum(
        receipt.facts.get("num_dropped", 0)
        for name, receipts in runner.receipts.items()
        if name.startswith("dedup") and not (by_joins and name == "dedup_components")
        for receipt in receipts
    )


def _place(ref: FileRef, target: str) -> None:
    """Link a published file into the dataset; what a rerun finds there is kept if its bytes are right."""
    if storage.exists(target):
        if storage.sha256_file(target)[0] == ref.sha256:
            return
        storage.remove_file(target)
        check_file(ref)  # the two may be one file, damaged for both
    storage.link_or_copy(ref.path, target)


def _link_tables(run_dir: str, folder: str, receipt: Receipt, kind: str) -> list[dict[str, Any]]:
    rows = receipt.facts[f"num_{'lineage' if kind == 'lineage' else 'selected'}"]
    entries = []
    for number, num_rows in enumerate(rows):
        ref = receipt.file(run_dir, f"{kind}-{number:06d}.parquet")
        path = f"{folder}/{kind}/part-{number:06d}.parquet"
        _place(ref, storage.join(run_dir, path))
        entries.append({"path": path, "rows": num_rows, "sha256": ref.sha256})
    return entries


def _link_shards(run_dir: str, folder: str, name: str, buckets: Sequence[Bucket]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    listed = []
    for bucket in buckets:
        for tar, index, num_samples in zip(bucket.shards, bucket.indexes, bucket.num_samples, strict=True):
            shard = shard_name(name, len(entries))
            _place(tar, storage.join(run_dir, folder, shard))
            _place(index, storage.join(run_dir, folder, index_name(shard)))
            listed.append(ShardReceipt(shard, num_samples, tar.num_bytes, tar.sha256, INDEX.empty_table()))
            entries.append(
                {
                    "path": f"{folder}/{shard}",
                    "num_samples": num_samples,
                    "bytes": tar.num_bytes,
                    "sha256": tar.sha256,
                }
            )
    storage.publish_bytes(storage.join(run_dir, folder, "index.json"), index_json(name, listed), replace=True)
    return entries
