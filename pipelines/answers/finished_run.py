"""A finished run, as everybody who asks one sees it."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from curation import storage
from curation.errors import IntegrityError, LvdError
from curation.shard.manifest import Manifest
from pipelines.answers.lineage import Lineage
from pipelines.answers.made import Made, made_of, read_made
from pipelines.config.run_config import RunConfig
from pipelines.config.run_dir import dataset_config_file, read_dataset_config, read_manifest
from pipelines.rows.parts import Part, names_of

if TYPE_CHECKING:
    from pipelines.engine.step import Receipt
    from pipelines.lvd import Curated


class FinishedRun:
    """A dataset, and what it was made from as far as that is still there; each is read when it is asked for.

    Args:
        run_dir: of the run.
        manifest: of its dataset.
    """

    def __init__(self, run_dir: str, manifest: Manifest) -> None:
        self.run_dir = run_dir
        self.manifest = manifest

    @property
    def dataset_dir(self) -> str:
        """The dataset's folder."""
        return storage.join(self.run_dir, self.manifest["dataset_dir"])

    @property
    def pools(self) -> list[str]:
        """Names of the pools, in their order."""
        return [name for name in self.manifest["counts"] if name != "dataset"]

    @cached_property
    def lineage(self) -> Lineage:
        """What became of every image, and why."""
        return Lineage(self.run_dir, self.manifest["lineage"])

    @cached_property
    def config(self) -> RunConfig:
        """The config that the dataset was made with, whatever has run since.

        Raises:
            ConfigError: when it is not known any more.
            IntegrityError: when it is damaged.
        """
        return read_dataset_config(self.run_dir, self.manifest)

    @cached_property
    def config_text(self) -> str:
        """The config as it was saved."""
        return storage.read_bytes(str(dataset_config_file(self.run_dir, self.manifest))).decode()

    @cached_property
    def made(self) -> Made | None:
        """What questions about single images need, as it was saved, or else as the flow finds it.

        None where the intermediate data is gone.
        """
        if (saved := read_made(self.run_dir, self.manifest)) is not None:
            return saved
        return None if self.curated is None else made_of(self.curated)

    @property
    def curated(self) -> "Curated | None":
        """What the stages made of this very dataset.

        None where a step's output is gone (cleaned, or made on another kind of machine), or where what is
        there made another dataset: then its lineage has other bytes.

        Raises:
            IntegrityError: what is there is damaged.
        """
        return self._found[0]

    @property
    def receipts(self) -> "Mapping[str, Sequence[Receipt]]":
        """By step, in the order of the flow; empty where `curated` is None."""
        return self._found[1]

    @cached_property
    def _found(self) -> "tuple[Curated | None, Mapping[str, Sequence[Receipt]]]":
        # Of the flow come all stages, which who asks for a single image has no need of.
        from pipelines.lvd import curate
        from pipelines.plan.dry_run import dry_run
        from pipelines.stages.shard.lineage import table_file

        config = self.config
        try:
            found = dry_run(config, curate)
        except IntegrityError:
            raise
        except (LvdError, OSError):
            return None, {}
        if (curated := found.made) is None:
            return None, {}
        files = curated.lineage.files
        lineage = [files[table_file("lineage", part.number)][1] for part in curated.parts]
        if lineage != [entry["sha256"] for entry in self.manifest["lineage"]]:
            return None, {}
        return curated, found.runner.receipts

    def part_of(self, row: int) -> Part:
        """The part that a global row lies in, of a run whose intermediate data is there."""
        assert self.made is not None, "a run without its parts"
        offsets = [part.offset for part in self.made.parts]
        return self.made.parts[int(np.searchsorted(offsets, row, side="right")) - 1]

    def names(self, rows: Iterable[int]) -> dict[int, str]:
        """`pool/key` of some global rows, of a run whose intermediate data is there."""
        assert self.made is not None, "a run without its parts"
        return names_of(self.made.parts, rows)


def require_run(run_dir: str) -> FinishedRun:
    """Open a finished run.

    Raises:
        ConfigError: when no dataset was finished in `run_dir`.
        IntegrityError: when its manifest is damaged.
    """
    return FinishedRun(run_dir, read_manifest(run_dir))


def find_run(run_dir: str) -> FinishedRun | None:
    """`require_run`, or None where no dataset was finished in `run_dir`."""
    return require_run(run_dir) if storage.exists(storage.join(run_dir, "manifest.json")) else None
