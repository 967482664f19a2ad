"""dataset: everything is linked into one folder, and `manifest.json` is replaced, last."""

import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from curation import storage
from curation.errors import LvdError
from curation.hashes import Hashes
from curation.shard.layout import shard_name
from curation.shard.manifest import MANIFEST_SCHEMA, Completeness, Entry, Manifest
from curation.shard.sample import INDEX, index_name
from curation.shard.write import ShardReceipt, index_json
from pipelines.config.listed import entry_of, file_entry, hashes_of, write_manifest
from pipelines.config.run_config import RunConfig, config_sha256
from pipelines.config.run_dir import read_manifest, saved_config
from pipelines.engine.digest import digest_of
from pipelines.engine.runner import Runner
from pipelines.engine.step import FileRef, Receipt
from pipelines.rows.parts import verified
from pipelines.stages.copies.cell_join import RECALL_SUFFIX
from pipelines.stages.describe.describe import other_keys
from pipelines.stages.shard.lineage import table_file
from pipelines.stages.shard.losses import as_data, find_losses
from pipelines.stages.shard.shard import Bucket

REPORT = "report.html"
# Files of the dataset that are hashed side by side: as many as keep a disk busy.
_NUM_HASHED_AT_ONCE = 8


def publish_dataset(
    runner: Runner, config: RunConfig, *, lineage: Receipt, buckets: Sequence[Bucket]
) -> Manifest:
    """Assemble `dataset-<identity>/` and replace the manifest; returns the manifest.

    Every file is hashed before it is linked, or found to be right where it was linked before.

    Raises:
        IntegrityError: naming a file of a step that is damaged; the manifest is the one before.
    """
    sha256s = [ref.sha256 for bucket in buckets for ref in bucket.shards]
    identity = digest_of(config.name, lineage.digest, sha256s)
    folder = f"dataset-{identity}"
    run_dir = runner.run_dir
    linked = _Linked(run_dir, folder, hashes_of(run_dir, writes=True))
    tables, selection = _tables(linked, lineage, "lineage"), _tables(linked, lineage, "selection")
    shards, indexes, listing = _shards(linked, config.name, buckets)
    linked.place()
    storage.publish_bytes(storage.join(run_dir, folder, "index.json"), listing, replace=True)
    manifest: Manifest = {
        "schema": MANIFEST_SCHEMA,
        "name": config.name,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "config_sha256": config_sha256(config),
        "code_version": importlib.metadata.version("lvd"),
        "seed": config.seed,
        **completeness(runner, lineage),
        "dataset_dir": folder,
        "lineage": tables,
        "selection": selection,
        "counts": lineage.facts["counts"],
        "funnel": lineage.facts["funnel"],
        "losses": as_data(find_losses(lineage.facts["funnel"], lineage.facts["examples"])),
        "recall": measured_recalls(runner),
        "edges_dropped": num_edges_dropped(runner),
        "shards": shards,
        "files": _files(linked, config, indexes),
    }
    write_manifest(run_dir, manifest)
    return manifest


def report_path(run_dir: str, manifest: Manifest) -> str:
    """Where the report of a dataset lies."""
    return storage.join(run_dir, manifest["dataset_dir"], REPORT)


def has_report(manifest: Manifest) -> bool:
    """Whether a dataset's report is written, and is the one that was."""
    return entry_of(manifest, f"{manifest['dataset_dir']}/{REPORT}") is not None


def completeness(runner: Runner, lineage: Receipt) -> Completeness:
    """Whether everything could be read, what could not, and what was odd about the rest."""
    unread, notes = _findings(runner, "unread"), _findings(runner, "notes")
    unread += [problem for receipt in runner.receipts["shard"] for problem in receipt.facts["unread"]]
    notes += other_keys(runner.receipts.get("describe", []))
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


def _findings(runner: Runner, kind: Literal["unread", "notes"]) -> list[Mapping[str, Any]]:
    """What listings found; once, where two pools list the same source."""
    listings = {receipt.identity: receipt for receipt in runner.receipts["ingest"]}
    return [problem for receipt in listings.values() for problem in receipt.facts[kind]]


def measured_recalls(runner: Runner) -> list[Mapping[str, Any]]:
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


@dataclass
class _Linked:
    """Files of steps that are to lie in the dataset.

    Args:
        run_dir: where both lie.
        folder: of the dataset, relative to `run_dir`.
        hashes: what is known of them.
    """

    run_dir: str
    folder: str
    hashes: Hashes
    wanted: list[tuple[FileRef, str]] = field(default_factory=list)

    def want(self, ref: FileRef, name: str) -> str:
        """Note a file; returns its path in the dataset."""
        path = f"{self.folder}/{name}"
        self.wanted.append((ref, path))
        return path

    def place(self) -> None:
        """Link them all. A damaged one is named before anything lies in its place."""
        with ThreadPoolExecutor(_NUM_HASHED_AT_ONCE, "place") as threads:
            for _ in threads.map(lambda one: self._place(*one), self.wanted):
                pass

    def _place(self, ref: FileRef, path: str) -> None:
        target = storage.join(self.run_dir, path)
        if self.hashes.holds(target, ref.sha256):
            return
        source = verified(ref, hashes=self.hashes)
        storage.remove_file(target)
        storage.link_or_copy(source, target)
        # A link is the file that was hashed, and a store copies as it stores; a copy of our own is read back.
        if not storage.is_local(target) or storage.local_path(source).samefile(storage.local_path(target)):
            self.hashes.remember(target, ref.sha256)
        verified(ref._replace(path=target), hashes=self.hashes)


def _tables(linked: _Linked, receipt: Receipt, kind: Literal["lineage", "selection"]) -> list[Entry]:
    rows = receipt.facts[f"num_{'lineage' if kind == 'lineage' else 'selected'}"]
    entries: list[Entry] = []
    for number, num_rows in enumerate(rows):
        ref = receipt.file(linked.run_dir, table_file(kind, number))
        path = linked.want(ref, f"{kind}/part-{number:06d}.parquet")
        entries.append({"path": path, "rows": num_rows, "sha256": ref.sha256})
    return entries


def _shards(linked: _Linked, name: str, buckets: Sequence[Bucket]) -> tuple[list[Entry], list[Entry], bytes]:
    """The entries of the shards, those of their indexes, and the list of shards for readers."""
    shards: list[Entry] = []
    indexes: list[Entry] = []
    listed = []
    for bucket in buckets:
        for tar, index, num_samples in zip(bucket.shards, bucket.indexes, bucket.num_samples, strict=True):
            shard = shard_name(name, len(shards))
            path = linked.want(tar, shard)
            beside = linked.want(index, index_name(shard))
            listed.append(ShardReceipt(shard, num_samples, tar.num_bytes, tar.sha256, INDEX.empty_table()))
            shards.append(
                {"path": path, "num_samples": num_samples, "bytes": tar.num_bytes, "sha256": tar.sha256}
            )
            indexes.append({"path": beside, "bytes": index.num_bytes, "sha256": index.sha256})
    return shards, indexes, index_json(name, listed)


def _files(linked: _Linked, config: RunConfig, indexes: list[Entry]) -> list[Entry]:
    """The entries of all files of the dataset that are neither tables nor shards.

    The report is among them as long as it is the one that was written for this dataset.
    """
    run_dir, hashes = linked.run_dir, linked.hashes
    listing = file_entry(run_dir, f"{linked.folder}/index.json", hashes=hashes)
    saved = file_entry(run_dir, saved_config(config_sha256(config)), hashes=hashes)
    try:
        report = entry_of(read_manifest(run_dir), f"{linked.folder}/{REPORT}")
    except LvdError:  # none, or a damaged one: the report is written anew
        report = None
    is_whole = report is not None and hashes.holds(storage.join(run_dir, report["path"]), report["sha256"])
    return [listing, *indexes, saved, *([report] if report is not None and is_whole else [])]
