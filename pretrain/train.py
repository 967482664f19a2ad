"""The training of one student by the mean of what it was; a stopped one goes on bit for bit.

The same function continues a training that began elsewhere: another stage of it, such as the one at a higher
resolution, or a branch (`pretrain.start`).
"""

from pathlib import Path

import torch

from pretrain.anchor import Anchor
from pretrain.at_hand import AtHand, at_hand, probe_of
from pretrain.config import PretrainConfig
from pretrain.data.image_set import ImageSet
from pretrain.data.loader import seed_of
from pretrain.identity import identity_of
from pretrain.learner import new_learner
from pretrain.loop import Session, Source, newest_checkpoint, run_loop
from pretrain.model.network import Network
from pretrain.normalisation import IMAGENET, Normalisation
from pretrain.parallel import Place
from pretrain.start import begin_anchor, begin_from, other_start, resume, start_from
from pretrain.targets import initial_centres
from pretrain.train_step import State, StepPlan

_MODEL_SEED = 2  # apart from those of the data and of the steps


def train(config: PretrainConfig, *, quiet: bool = False) -> Path:
    """Train, or go on with a training, up to the last iteration.

    Args:
        config: with `run_dir`, and `data.path` or `data.mix`, set.
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
    run_dir = Path(config.run_dir)
    with at_hand(config, run_dir, quiet=quiet) as hand:
        identity = identity_of(config, dataset=hand.images.digest, window_images=config.data.window_images)
        state = _begun(config, run_dir, identity, hand)
        start = config.start.checkpoint if config.start else None
        normalisation = hand.normalisation(config, run_dir, start=start)
        session = Session(
            total=config.schedule.total,
            plan=plan_of(config, normalisation),
            source=source_of(config, hand.images),
            where=hand.where,
            checkpoint=config.checkpoint,
            max_skipped=config.max_skipped,
            identity=identity,
            progress=hand.progress,
            logs=hand.open_logs(config, {run_dir: config.name}, first_step=state.step),
            probe=probe_of(config, normalisation, side_px=config.grid * config.model.patch_px),
            stop=hand.stop,
            is_guarded=config.model.weights is not None or state.parent is not None,
        )
        [folder] = run_loop(session, state)
        return folder


def _begun(config: PretrainConfig, run_dir: Path, identity: dict[str, object], hand: AtHand) -> State:
    """The training as its newest checkpoint has it, or as it begins."""
    where, say = hand.where, hand.progress.say
    step = newest_checkpoint([run_dir], where, warn=say)
    state = build(config, where, is_new=step is None)
    if step is not None:
        for text in resume(state, step, identity, where):
            say(text)
        if config.start is not None and (told := other_start(config.start, state.parent)):
            say(told)
        return state
    if config.start is not None:
        begin_from(config.start, state, dataset=hand.images.digest, where=where, warn=say)
    begin_anchor(state)
    return state


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
        student.backbone.load_state_dict(
            start_from(config.model.weights, student.backbone.config, inflate=config.model.inflate)
        )
    teacher = Network(config.backbone(drop_path=0.0), *heads)
    centres = initial_centres(teacher, device=where.device)
    learner = new_learner(
        student,
        teacher,
        where,
        folder=Path(config.run_dir or "."),
        schedule=config.schedule,
        optimizer=config.optimizer,
        parallel=config.parallel,
    )
    anchor = Anchor(config.gram, teacher, where, config.parallel) if config.gram else None
    return State([learner], learner.mean, centres, anchor=anchor)


def plan_of(config: PretrainConfig, normalisation: Normalisation = IMAGENET) -> StepPlan:
    """What every iteration of a training does alike."""
    return StepPlan(
        config.seed,
        config.batch_images,
        config.objective,
        config.schedule,
        accumulate=config.accumulate,
        normalisation=normalisation,
        masks_student=config.model.timm_name is None,
    )


def source_of(config: PretrainConfig, images: ImageSet) -> Source:
    """Where the batches of a training come from."""
    return Source(
        images,
        config.data,
        config.crops,
        config.masking,
        grid=config.crop_grid,
        seed=config.seed,
        batch_images=config.batch_images,
        accumulate=config.accumulate,
    )
