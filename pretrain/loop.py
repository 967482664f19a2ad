"""The loop of every training: batches, steps, what is said of them, looks, checkpoints, and how it stops."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from curation.errors import ConfigError, StoppedError
from pretrain import checkpoint
from pretrain.checkpoint import CheckpointConfig
from pretrain.checkpoint_files import step_dir
from pretrain.data.augment import CropConfig
from pretrain.data.config import DataConfig
from pretrain.data.image_set import ImageSet
from pretrain.data.loader import CropBatch, Share, StepDataset, batches, order_of, raised
from pretrain.data.masking import MaskingConfig
from pretrain.divergence import diverged
from pretrain.evaluate.probe import Probe, is_collapsed
from pretrain.loss.group import Group
from pretrain.metrics import MetricsLog, ProgressLine
from pretrain.parallel import Place
from pretrain.start_line import Size, start_line
from pretrain.train_step import State, StepOutcome, StepPlan, train_step


@dataclass(frozen=True)
class Source:
    """Where the batches of a training come from.

    Attributes:
        images: of the data set.
        data, crops, masking: how they are read, and what is made of them.
        grid: rows and columns of patches of a global crop.
        seed: of the order, crops and masks.
        batch_images: over all ranks.
        accumulate: micro-batches in which a rank works through its part.
    """

    images: ImageSet
    data: DataConfig
    crops: CropConfig
    masking: MaskingConfig
    grid: tuple[int, int]
    seed: int
    batch_images: int
    accumulate: int = 1


@dataclass(frozen=True)
class Session:
    """What a training has at hand, and what stays as it is.

    Attributes:
        total: iterations of the training.
        plan: of every iteration.
        source: of the batches.
        where: this rank's place.
        checkpoint: when checkpoints are written, and which of them stay.
        max_skipped: steps in a row without a finite loss that are too many.
        identity: what the checkpoints say of the training; see `pretrain.identity`.
        progress: what people see.
        logs: of each student; none but on the first rank.
        probe: what measures the students' means.
        stop: no longer empty once SIGTERM has come.
    """

    total: int
    plan: StepPlan
    source: Source
    where: Place
    checkpoint: CheckpointConfig
    max_skipped: int
    identity: dict[str, object]
    progress: ProgressLine
    logs: Sequence[MetricsLog]
    probe: Probe | None
    stop: list[int]


def run_loop(session: Session, state: State) -> list[Path]:
    """Take the steps that are left, up to the last one.

    Returns:
        The folder of the last checkpoint of each student.

    Raises:
        StoppedError: on SIGTERM, after a checkpoint.
        ExecutorError: when too many steps in a row have no finite loss.
        IntegrityError: when the dataset is damaged.
    """
    total, where, probe = session.total, session.where, session.probe
    folders = [step_dir(learner.folder, state.step) for learner in state.learners]
    session.progress.say(start_line(state.learners, _size(session, state), where))
    if state.step == state.first_step:
        look(session, state)
    started = time.perf_counter()
    for crops in load_batches(session.source, state, total=total, where=where):
        waited_s = time.perf_counter() - started
        outcome = train_step(state, crops, session.plan, where, is_asked_to_stop=bool(session.stop))
        _tell(session, state, outcome, waited_s=waited_s, step_s=time.perf_counter() - started)
        for learner, record in zip(state.learners, outcome.records, strict=True):
            if learner.num_skipped >= max(1, session.max_skipped):
                raise diverged(learner, record, where)
        is_last = state.step == total
        if probe and (is_last or state.step % probe.every == 0):
            look(session, state)
        if is_last or outcome.is_stopping or state.step % session.checkpoint.every == 0:
            folders = save(session, state)
        if outcome.is_stopping and not is_last:
            raise StoppedError(
                f"Stopped after step {state.step} of {total}; saved in {', '.join(map(str, folders))}",
                remedy="The same command goes on from there",
            )
        started = time.perf_counter()
    return folders


def _size(session: Session, state: State) -> Size:
    source = session.source
    return Size(source.images.num_images, source.batch_images, source.accumulate, state.step, session.total)


def images_seen(session: Session, state: State) -> int:
    """Position in the data's order: images seen so far, those of the training that it began with included."""
    return state.first_image + (state.step - state.first_step) * session.source.batch_images


def _tell(session: Session, state: State, outcome: StepOutcome, *, waited_s: float, step_s: float) -> None:
    """Log a step, and show it."""
    for record in outcome.records:
        record |= {
            "unreadable": outcome.num_unreadable,
            "images_per_s": session.source.batch_images / step_s,
            "step_s": step_s,
            "data_wait": waited_s / step_s,
            "images_seen": images_seen(session, state),
        }
    for log, record in zip(session.logs, outcome.records, strict=False):
        log.write(record)
    session.progress.show(outcome.records)
    if outcome.num_unreadable:
        session.progress.say(f"{outcome.num_unreadable} images cannot be decoded; others were taken")


def load_batches(source: Source, state: State, *, total: int, where: Place) -> Iterator[CropBatch]:
    """The batches of this rank from a step on.

    Raises:
        ConfigError: when the ranks cannot share a batch evenly, or a rank its part among micro-batches.
    """
    _require_even(source, where.group)
    dataset = StepDataset(
        source.images,
        order_of(source.images, source.data, seed=source.seed),
        Share(source.batch_images, where.group.rank, where.group.size, state.first_step, state.first_image),
        crops=source.crops,
        masking=source.masking,
        grid=source.grid,
        seed=source.seed,
        read_threads=source.data.read_threads,
    )
    steps = range(state.step, total)
    return raised(batches(dataset, source.data, steps=steps, pin_memory=where.device.type == "cuda"))


def _require_even(source: Source, group: Group) -> None:
    if source.batch_images % group.size:
        raise ConfigError(
            "The ranks cannot share a batch evenly",
            got=f"batch_images {source.batch_images}, {group.size} ranks",
            expected="a multiple of the number of ranks",
        )
    each = source.batch_images // group.size
    if each % source.accumulate:
        raise ConfigError(
            "A batch cannot be cut evenly into micro-batches",
            got=f"{each} images on each rank, accumulate {source.accumulate}",
            expected=f"a divisor of {each}",
        )


def look(session: Session, state: State) -> None:
    """Measure the mean of every student, where the config asks for it."""
    if session.probe is None:
        return
    for number, learner in enumerate(state.learners):
        learner.mean.refresh()
        measures = session.probe.measure(learner.mean.working.backbone, session.where)
        if session.logs:
            session.logs[number].write({"step": state.step, **measures})
        shown = "  ".join(f"{name} {value:.3f}" for name, value in measures.items())
        of = f"{learner.folder.name}, " if len(state.learners) > 1 else ""
        session.progress.say(f"{of}step {state.step:,}: {shown}")
        if is_collapsed(measures):
            session.progress.say("the features of nearly all images are alike: the training is collapsing")


def save(session: Session, state: State) -> list[Path]:
    """Write a checkpoint of every student; every rank must call. Nothing goes before all are written."""
    where, source = session.where, session.source
    is_first = where.group.rank == 0
    facts = {
        "images_seen": images_seen(session, state),
        "first_step": state.first_step,
        "first_image": state.first_image,
        "parent": state.parent,
        "batch_images": source.batch_images,
        "dataset": source.images.digest,
        "num_ranks": where.group.size,
        "torch": torch.__version__,
        "identity": session.identity,
    }
    folders = [
        checkpoint.save(
            learner.folder,
            state.step,
            student=learner.student.network,
            teacher=learner.mean.network,
            optimizer=learner.optimizer,
            centres=state.centres,
            facts={**facts, "num_skipped": learner.num_skipped},
            normalisation=session.plan.normalisation,
            is_writer=is_first,
        )
        for learner in state.learners
    ]
    if is_first:
        for learner in state.learners:
            checkpoint.prune(learner.folder, session.checkpoint, newest=state.step)
    # Nobody leaves while the first rank writes: torchrun ends all ranks soon after one of them has ended.
    where.group.sum(torch.zeros((), device=where.device)).item()
    return folders


def newest_checkpoint(folders: Sequence[Path], where: Place, *, warn: Callable[[str], None]) -> int | None:
    """The step to go on from, which all students have; or None. The first rank looks, for all to agree."""
    step = 0.0
    if where.group.rank == 0:
        found = checkpoint.newest_common(folders, warn=warn)
        step = -1.0 if found is None else float(found)
    step = where.group.sum(torch.tensor(step, dtype=torch.float64, device=where.device)).item()
    return None if step < 0 else int(step)


@contextmanager
def stop_flag() -> Iterator[list[int]]:
    """A list that is no longer empty once SIGTERM has come."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
