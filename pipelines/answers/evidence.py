"""What a finished run left behind, as far as the report needs it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation import storage
from curation.errors import IntegrityError, LvdError
from pipelines.config.run_config import RunConfig
from pipelines.config.run_dir import dataset_config_file, read_dataset_config, read_manifest
from pipelines.engine.progress import Progress
from pipelines.engine.runner import Runner, StopHereError
from pipelines.engine.step import FileRef, Receipt
from pipelines.lvd import Curated, curate
from pipelines.rows.parts import Part
from pipelines.stages.copies.join import EdgeFile


@dataclass(frozen=True)
class Steps:
    """The intermediate data that this very dataset was made from."""

    parts: tuple[Part, ...]
    copies: FileRef
    health: FileRef
    hubs: FileRef
    edges: tuple[EdgeFile, ...]
    leaks: FileRef
    hits: Mapping[str, FileRef]  # by curated pool
    receipts: Mapping[str, Sequence[Receipt]]  # by step, in the order of the flow


@dataclass(frozen=True)
class Evidence:
    """A finished dataset, its config, and its intermediate data where that is still there."""

    run_dir: str
    manifest: Mapping[str, Any]
    config: RunConfig
    config_text: str
    steps: Steps | None

    @property
    def dataset_dir(self) -> str:
        """The dataset's folder."""
        return storage.join(self.run_dir, self.manifest["dataset_dir"])

    def lineage(self) -> list[str]:
        """The paths of the lineage's files, in the order of parts."""
        return [storage.join(self.run_dir, entry["path"]) for entry in self.manifest["lineage"]]


def read_evidence(run_dir: str) -> Evidence:
    """Find what a finished run left.

    Raises:
        ConfigError: when no dataset was finished in `run_dir`, or its config is not known any more.
        IntegrityError: when the manifest is damaged.
    """
    manifest = read_manifest(run_dir)
    config = read_dataset_config(run_dir, manifest)
    text = storage.read_bytes(str(dataset_config_file(run_dir, manifest))).decode()
    return Evidence(run_dir, manifest, config, text, find_steps(run_dir, config, manifest=manifest))


def find_steps(run_dir: str, config: RunConfig, *, manifest: Mapping[str, Any]) -> Steps | None:
    """The intermediate data of the dataset in `manifest`, as far as the report shows it."""
    runner = Runner(run_dir, None, Progress(quiet=True))
    made = find_curated(runner, config, manifest=manifest)
    if made is None:
        return None
    copies = made.copies
    return Steps(
        parts=made.parts,
        copies=copies.copies,
        health=copies.health,
        hubs=copies.hubs,
        edges=copies.edges,
        leaks=made.leaks.leaks,
        hits=made.hits,
        receipts=runner.receipts,
    )


def find_curated(runner: Runner, config: RunConfig, *, manifest: Mapping[str, Any]) -> Curated | None:
    """What the stages made of the dataset in `manifest`, found by a dry run of its config.

    None where a step's output is gone (cleaned, or made on another kind of machine), or where what is there
    made another dataset: then its lineage has other bytes.

    Raises:
        IntegrityError: what is there is damaged.
    """
    try:
        made = curate(runner, config, refresh=False)
    except IntegrityError:
        raise
    except (StopHereError, LvdError, OSError):
        return None
    files = made.lineage.files
    lineage = [files[name][1] for name in sorted(files) if name.startswith("lineage-")]
    return made if lineage == [entry["sha256"] for entry in manifest["lineage"]] else None
