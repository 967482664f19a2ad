"""A finished run, as everybody who asks one sees it."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from curation import storage
from curation.errors import IntegrityError, LvdError
from pipelines.answers.find_image import names_of
from pipelines.answers.made import Made, made_of, read_made
from pipelines.config.run_config import RunConfig
from pipelines.config.run_dir import dataset_config_file, read_dataset_config, read_manifest
from pipelines.rows.parts import Part

if TYPE_CHECKING:
    from pipelines.engine.step import Receipt
    from pipelines.lvd import Curated


class FinishedRun:
    """A dataset, and what it was made from as far as that is still there; each is read when it is asked for.

    Args:
        run_dir: of the run.
        manifest: of its dataset.
        config: that the dataset was made with, whatever has run since.
    """

    def __init__(self, run_dir: str, manifest: Mapping[str, Any], config: RunConfig) -> None:
        self.run_dir = run_dir
        self.manifest = manifest
        self.config = config

    @property
    def dataset_dir(self) -> str:
        """The dataset's folder."""
        return storage.join(self.run_dir, self.manifest["dataset_dir"])

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
        from pipelines.engine.progress import Progress
        from pipelines.engine.runner import Runner, StopHereError
        from pipelines.lvd import curate
        from pipelines.stages.shard.lineage import table_file

        runner = Runner(self.run_dir, None, Progress(quiet=True))
        try:
            curated = curate(runner, self.config, refresh=False)
        except IntegrityError:
            raise
        except (StopHereError, LvdError, OSError):
            return None, {}
        files = curated.lineage.files
        lineage = [files[table_file("lineage", part.number)][1] for part in curated.parts]
        if lineage != [entry["sha256"] for entry in self.manifest["lineage"]]:
            return None, {}
        return curated, runner.receipts

    def part_of(self, row: int) -> Part:
        """The part that a global row lies in, of a run whose intermediate data is there."""
        assert self.made is not None, "a run without its parts"
        offsets = [part.offset for part in self.made.parts]
        return self.made.parts[int(np.searchsorted(offsets, row, side="right")) - 1]

    def name(self, row: int) -> str:
        """`pool/key` of a global row."""
        return self.names([row])[row]

    def names(self, rows: list[int]) -> dict[int, str]:
        """`pool/key` of some global rows."""
        found = names_of(self.run_dir, self.manifest, rows)
        return {row: f"{image['pool']}/{image['key']}" for row, image in found.items()}


def open_run(run_dir: str) -> FinishedRun:
    """Open a finished run, with the config that its dataset was made with.

    Raises:
        ConfigError: when no dataset was finished in `run_dir`, or its config is not known.
        IntegrityError: when what it says of itself is damaged.
    """
    manifest = read_manifest(run_dir)
    return FinishedRun(run_dir, manifest, read_dataset_config(run_dir, manifest))
