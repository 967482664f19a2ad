"""The training: a teacher, a student, and the loop that moves them; a stopped one goes on bit for bit."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from curation.errors import ConfigError, ExecutorError, StoppedError
from pretrain import checkpoint
from pretrain.checkpoint_files import step_dir
from pretrain.config import PretrainConfig
from pretrain.data.augment import normalise
from pretrain.data.images import Images
from pretrain.data.loader import CropBatch, Share, StepDataset, batches, order_of, raised, seed_of
from pretrain.data.spool import own_spool
from pretrain.evaluate.probe import Probe, is_collapsed
from pretrain.loss.group import Group
from pretrain.metrics import MetricsLog, ProgressLine
from pretrain.model.network import Network
from pretrain.objective import Batch, Centres, Losses, initial_centres, student_losses, teacher_targets
from pretrain.optimizer import apply_schedule, build_adamw, clip_gradients, move_teacher
from pretrain.parallel import Place, Placed, place
from pretrain.schedules import scheduled
from pretrain.sinks.feed import Sinks
from pretrain.sinks.required import require_sinks
from pretrain.start import start_from

_MODEL_SEED, _STEP_SEED = 2, 3  # apart from those of the data


@dataclass
class State:
    """What moves as a training goes on."""

    student: Placed
    teacher: Placed
    optimizer: torch.optim.AdamW
    centres: Centres
    step: int = 0  # iterations done
    num_skipped: int = 0  # of them in a row, up to now, without a finite loss


def train(config: PretrainConfig, *, quiet: bool = False) -> Path:
    """Train, or go on with a training, up to the last iteration.

    Args:
        config: with `run_dir` and `data.path` set.
        quiet: show nothing.

    Returns:
        The folder of the last checkpoint.

    Raises:
        ConfigError: when the config cannot be trained, or is not that of the training in `run_dir`.
        StoppedError: on SIGTERM, after a checkpoint.
        ExecutorError: when too many steps in a row have no finite loss.
        IntegrityError: when the dataset or every checkpoint is damaged.
    """
    assert config.run_dir is not None
    assert config.data.path is not None
    run_dir = Path(config.run_dir)
    with place(config.parallel) as where, _stop_flag() as stop:
        is_first = where.group.rank == 0
        if is_first:
            require_sinks(config.sinks)
        progress = ProgressLine(config.schedule.iterations, quiet=quiet or not is_first)
        # Of this machine: the run_dir may be a folder that many machines share.
        spool = own_spool(config.data.spool_dir, max_bytes=config.data.spool_bytes)
        images = Images(config.data.path, cache=run_dir / "cache", spool=spool)
        folder = _newest_checkpoint(run_dir, where, warn=progress.say)
        state = build(config, where, is_new=folder is None)
        if folder is not None:
            _resume(folder, config, state, dataset=images.digest, where=where, warn=progress.say)
        probe = Probe(config.probe, side_px=config.crops.global_size_px) if config.probe else None
        with _log(config, first_step=state.step, warn=progress.say) if is_first else nullcontext() as log:
            return _loop(Session(config, run_dir, where, images, progress, log, probe, stop), state)


def _log(config: PretrainConfig, *, first_step: int, warn: Callable[[str], None]) -> MetricsLog:
    sinks = Sinks(config.sinks, config.name, config.model_dump(mode="json"))
    return MetricsLog(Path(config.run_dir or ""), first_step=first_step, warn=warn, sinks=sinks)


@dataclass(frozen=True)
class Session:
    """What a training has at hand, and what stays as it is."""

    config: PretrainConfig
    run_dir: Path
    where: Place
    images: Images
    progress: ProgressLine
    log: MetricsLog | None  # of the first rank
    probe: Probe | None
    stop: list[int]  # no longer empty once SIGTERM has come


def _loop(session: Session, state: State) -> Path:
    config, where, probe = session.config, session.where, session.probe
    total = config.schedule.iterations
    folder = step_dir(session.run_dir, state.step)
    if state.step == 0:
        _look(session, state)
    started = time.perf_counter()
    for crops in load_batches(
        config, session.images, where.group, first_step=state.step, device=where.device
    ):
        waited = time.perf_counter() - started
        record = train_step(state, crops, config, where, is_asked_to_stop=bool(session.stop))
        is_stopping = record.pop("is_stopping")
        step_s = time.perf_counter() - started
        record |= {
            "images_per_s": config.batch_images / step_s,
            "step_s": step_s,
            "data_wait": waited / step_s,
            "images_seen": state.step * config.batch_images,
        }
        if session.log:
            session.log.write(record)
        session.progress.show(record)
        if record["unreadable"]:
            session.progress.say(f"{record['unreadable']} images cannot be decoded; others were taken")
        if state.num_skipped >= max(1, config.max_skipped):
            raise _diverged(state, record)
        is_last = state.step == total
        if probe and (is_last or state.step % probe.every == 0):
            _look(session, state)
        if is_last or is_stopping or state.step % config.checkpoint.every == 0:
            folder = _save(session, state)
        if is_stopping and not is_last:
            raise StoppedError(
                f"Stopped after step {state.step} of {total}; saved in {folder}",
                remedy="The same command goes on from there",
            )
        started = time.perf_counter()
    return folder


def build(config: PretrainConfig, where: Place, *, is_new: bool = True) -> State:
    """A student with its optimiser, and a teacher that is its copy, at iteration 0.

    Args:
        config: of the training.
        where: this rank's place.
        is_new: whether it begins with `model.weights`, or its weights are those of a checkpoint to come.
    """
    heads = config.head_shapes()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(config.seed, _MODEL_SEED))
        student = Network(config.backbone(drop_path=config.model.drop_path), *heads)
    if config.model.weights and is_new:
        student.backbone.load_state_dict(start_from(config.model.weights, student.backbone.config))
    teacher = Network(config.backbone(drop_path=0.0), *heads)
    teacher.load_state_dict(student.state_dict())
    teacher.requires_grad_(False)
    centres = initial_centres(teacher, device=where.device)
    placed = Placed(student.train(), where, config.parallel)
    optimizer = build_adamw(
        placed.network.named_parameters(), depth=student.backbone.config.depth, config=config.optimizer
    )
    return State(placed, Placed(teacher.eval(), where, config.parallel), optimizer, centres)


def train_step(
    state: State, crops: CropBatch, config: PretrainConfig, where: Place, *, is_asked_to_stop: bool = False
) -> dict[str, Any]:
    """One iteration: move the student down its gradient and the teacher after it, if all losses are finite.

    Returns:
        What happened, for the log: every term of the loss as it was minimised, its total, gradient norms,
        and the scheduled values; and whether any rank was asked to stop.
    """
    values = scheduled(state.step, config.schedule, batch_images=config.batch_images)
    apply_schedule(state.optimizer, values)
    # Stochastic depth draws from torch's own generator: its state would be one more thing to save.
    torch.manual_seed(seed_of(config.seed, _STEP_SEED, state.step, where.group.rank))
    batch = to_batch(crops, where)
    state.teacher.refresh()
    state.student.refresh()
    temperature, group, teacher = values.teacher_temperature, where.group, state.teacher.working
    targets, centres = teacher_targets(
        teacher, batch, state.centres, config.objective, temperature=temperature, group=group
    )
    losses = student_losses(state.student.working, batch, targets, config.objective, group=group)
    losses.total.backward()
    state.student.take_gradients()
    norms = clip_gradients(state.student.network, limit=config.optimizer.clip)
    counts = torch.tensor([float(crops.num_unreadable), float(is_asked_to_stop)], device=where.device)
    shares = torch.cat([torch.stack([*losses, losses.total]).detach().float(), counts])
    means = (where.group.sum(shares) / where.group.size).tolist()
    named_norms = {f"grad_norm_{name}": norm.item() for name, norm in norms.items()}
    is_finite = bool(np.isfinite([*means, *named_norms.values()]).all())
    _go_on(state, centres, momentum=values.momentum, is_finite=is_finite)
    *terms, total, unreadable, stopping = means
    return {
        "step": state.step,
        "loss": total,
        **dict(zip(Losses._fields, terms, strict=True)),
        **named_norms,
        **values._asdict(),
        "skipped": not is_finite,
        "unreadable": round(unreadable * where.group.size),
        "is_stopping": stopping > 0,
    }


def _go_on(state: State, centres: Centres, *, momentum: float, is_finite: bool) -> None:
    """Move both networks and the centres, where all is finite; the step is over, whatever it was."""
    if is_finite:
        state.optimizer.step()
        move_teacher(state.teacher.network, state.student.network, momentum=momentum)
        state.centres = centres
    state.optimizer.zero_grad()
    state.step += 1
    state.num_skipped = 0 if is_finite else state.num_skipped + 1


def to_batch(crops: CropBatch, where: Place) -> Batch:
    """Crops as normalised numbers on this rank's device."""
    # Moved as bytes: a quarter of what the normalised crops take.
    globals_, locals_ = (
        normalise(part.to(where.device, non_blocking=True), dtype=where.dtype)
        for part in (crops.globals_, crops.locals_)
    )
    return Batch(globals_, locals_, crops.masks.to(where.device, non_blocking=True))


def load_batches(
    config: PretrainConfig, images: Images, group: Group, *, first_step: int, device: torch.device
) -> Iterator[CropBatch]:
    """The batches of this rank from a step on.

    Raises:
        ConfigError: when the ranks cannot share a batch evenly.
    """
    if config.batch_images % group.size:
        raise ConfigError(
            "The ranks cannot share a batch evenly",
            got=f"batch_images {config.batch_images}, {group.size} ranks",
            expected="a multiple of the number of ranks",
        )
    dataset = StepDataset(
        images,
        order_of(images, config.data, seed=config.seed),
        Share(config.batch_images, group.rank, group.size),
        crops=config.crops,
        masking=config.masking,
        grid=(config.grid, config.grid),
        seed=config.seed,
        read_threads=config.data.read_threads,
    )
    steps = range(first_step, config.schedule.iterations)
    return raised(batches(dataset, config.data, steps=steps, pin_memory=device.type == "cuda"))


def _look(session: Session, state: State) -> None:
    """Measure the teacher, where the config asks for it."""
    if session.probe is None:
        return
    state.teacher.refresh()
    measures = session.probe.measure(state.teacher.working.backbone, session.where)
    if session.log:
        session.log.write({"step": state.step, **measures})
    shown = "  ".join(f"{name} {value:.3f}" for name, value in measures.items())
    session.progress.say(f"step {state.step:,}: {shown}")
    if is_collapsed(measures):
        session.progress.say("the features of nearly all images are alike: the training is collapsing")


def _save(session: Session, state: State) -> Path:
    config, is_first = session.config, session.where.group.rank == 0
    folder = checkpoint.save(
        session.run_dir,
        state.step,
        student=state.student.network,
        teacher=state.teacher.network,
        optimizer=state.optimizer,
        centres=state.centres,
        facts={
            "images_seen": state.step * config.batch_images,
            "num_skipped": state.num_skipped,
            "num_ranks": session.where.group.size,
            "torch": torch.__version__,
            "identity": _identity(config, session.images.digest),
        },
        is_writer=is_first,
    )
    if is_first:
        checkpoint.prune(session.run_dir, config.checkpoint, newest=state.step)
    # Nobody leaves while the first rank writes: torchrun ends all ranks soon after one of them has ended.
    session.where.group.sum(torch.zeros((), device=session.where.device)).item()
    return folder


def _newest_checkpoint(run_dir: Path, where: Place, *, warn: Callable[[str], None]) -> Path | None:
    """The checkpoint to go on from, or None. The first rank looks, for all to go on from the same."""
    step = 0.0
    if where.group.rank == 0:
        found = checkpoint.newest_sound(run_dir, warn=warn)
        step = -1.0 if found is None else float(checkpoint.read_facts(found)["step"])
    step = where.group.sum(torch.tensor(step, dtype=torch.float64, device=where.device)).item()
    return None if step < 0 else step_dir(run_dir, int(step))


def _resume(
    folder: Path,
    config: PretrainConfig,
    state: State,
    *,
    dataset: str,
    where: Place,
    warn: Callable[[str], None],
) -> None:
    """Go on from a checkpoint."""
    facts = checkpoint.read_facts(folder)
    _require_same(facts["identity"], _identity(config, dataset), folder)
    state.centres = checkpoint.load(
        folder,
        student=state.student.network,
        teacher=state.teacher.network,
        optimizer=state.optimizer,
    )
    state.step, state.num_skipped = facts["step"], facts["num_skipped"]
    warn(f"going on from {folder}")
    if facts["num_ranks"] != where.group.size:
        warn(
            f"{where.group.size} ranks go on for {facts['num_ranks']}, with the same images and crops; "
            "masks and stochastic depth are drawn for each rank's part, and will be others"
        )


def _identity(config: PretrainConfig, dataset: str) -> dict[str, object]:
    """What decides which numbers come out: the data and its order, and every setting but where it runs."""
    free = {"name", "run_dir", "data", "checkpoint", "probe", "sinks", "parallel", "max_skipped"}
    settings = config.model_dump(mode="json", exclude=free)
    return {**settings, "dataset_sha256": dataset, "window_images": config.data.window_images}


def _require_same(saved: dict[str, object], now: dict[str, object], folder: Path) -> None:
    """Refuse to go on with another training than was begun."""
    if changed := list(_changes(saved, now)):
        raise ConfigError(
            f"{folder} was written by another training: {', '.join(changed)}",
            remedy="Change it back, or give the new training a run_dir of its own",
        )


def _changes(saved: Any, now: Any, name: str = "") -> Iterator[str]:
    """The settings that differ, each alone: `schedule.iterations: 4 -> 6`."""
    if isinstance(saved, dict) and isinstance(now, dict):
        for key in [*now, *(key for key in saved if key not in now)]:
            yield from _changes(saved.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif saved != now:
        yield f"{name}: {json.dumps(saved)} -> {json.dumps(now)}"


def _diverged(state: State, record: dict[str, object]) -> ExecutorError:
    return ExecutorError(
        f"{state.num_skipped} steps in a row had no finite loss or gradient; none of them was taken",
        got=f"step {state.step}: "
        + ", ".join(f"{name} {record[name]}" for name in ("loss", *Losses._fields)),
        expected="finite numbers",
        remedy="Set parallel.dtype to fp32 and go on here, or begin anew in another run_dir with a lower "
        "schedule.base_lr or a longer lr_warmup. The same command repeats the steps from the last checkpoint",
    )


@contextmanager
def _stop_flag() -> Iterator[list[int]]:
    """A list that is no longer empty once SIGTERM has come."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
