"""What a training has at hand before it begins: place, images, what it says and writes, how it stops."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pretrain.config import PretrainConfig
from pretrain.data.image_set import ImageSet
from pretrain.data.loader import order_of
from pretrain.data.opening import open_images
from pretrain.data.spool import own_spool
from pretrain.data.statistics import settle_normalisation
from pretrain.distill_config import DistillConfig
from pretrain.evaluate.probe import Probe
from pretrain.loop import stop_flag
from pretrain.metrics import MetricsLog, ProgressLine
from pretrain.normalisation import Normalisation
from pretrain.parallel import Place, place
from pretrain.sinks.feed import Sinks
from pretrain.sinks.required import require_sinks

Config = PretrainConfig | DistillConfig


@dataclass(frozen=True)
class AtHand:
    """What stays open as long as a training lasts.

    Attributes:
        where: this rank's place.
        images: of its data set.
        progress: what people see.
        stop: no longer empty once SIGTERM has come.
        exits: what is closed with it.
    """

    where: Place
    images: ImageSet
    progress: ProgressLine
    stop: list[int]
    exits: ExitStack

    def open_logs(self, config: Config, names: Mapping[Path, str], *, first_step: int) -> list[MetricsLog]:
        """The log of each student, and where else its numbers go under its name; none but on the first rank.

        Args:
            config: of the training.
            names: of each student's folder.
            first_step: from which it goes on.
        """
        if self.where.group.rank != 0:
            return []
        settings = config.model_dump(mode="json")
        return [
            self.exits.enter_context(
                MetricsLog(
                    folder,
                    first_step=first_step,
                    warn=self.progress.say,
                    sinks=Sinks(config.sinks, name, settings),
                )
            )
            for folder, name in names.items()
        ]

    def normalisation(self, config: Config, run_dir: Path, *, start: str | None) -> Normalisation:
        """How its crops are normalised; see `settle_normalisation`."""
        return settle_normalisation(
            config.crops,
            self.images,
            order_of(self.images, config.data, seed=config.seed),
            run_dir=run_dir,
            where=self.where,
            start=start,
            say=self.progress.say,
        )


@contextmanager
def at_hand(config: Config, run_dir: Path, *, quiet: bool) -> Iterator[AtHand]:
    """Take this process's place, open the images, and listen for SIGTERM.

    Raises:
        ConfigError: when a package, a device or the data set is not there.
        IntegrityError: when the data set is damaged.
    """
    with place(config.parallel) as where, stop_flag() as stop, ExitStack() as exits:
        is_first = where.group.rank == 0
        if is_first:
            require_sinks(config.sinks)
        progress = ProgressLine(config.schedule.total, quiet=quiet or not is_first)
        images = open_images(
            config.data,
            cache=run_dir / "cache",
            # Of this machine: the run_dir may be a folder that many machines share.
            spool=own_spool(config.data.spool_dir, max_bytes=config.data.spool_bytes),
            batch_images=config.batch_images,
            say=progress.say,
        )
        yield AtHand(where, images, progress, stop, exits)


def probe_of(config: Config, normalisation: Normalisation, *, side_px: int) -> Probe | None:
    """What measures the students' means as they learn, if the config asks for it.

    Args:
        config: of the training.
        normalisation: of its crops.
        side_px: of what is measured, where the probe does not say.
    """
    if config.probe is None:
        return None
    return Probe(config.probe, side_px=side_px, normalisation=normalisation)
