"""The distillation of one or several students from a frozen teacher; a stopped one goes on bit for bit.

Each student is what it would be if it were alone: the teacher's targets are made once a batch, for all.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from curation.errors import ConfigError
from pretrain.at_hand import at_hand, probe_of
from pretrain.checkpoint_files import complete_steps, read_facts, step_dir, student_dir, student_dirs
from pretrain.data.augment import sides_of
from pretrain.data.image_set import ImageSet
from pretrain.data.loader import seed_of
from pretrain.distill_config import DistillConfig
from pretrain.identity import identity_of, require_same
from pretrain.learner import Learner, new_learner
from pretrain.loop import Session, Source, newest_checkpoint, run_loop
from pretrain.model.heads import HeadConfig
from pretrain.model.network import Network
from pretrain.normalisation import IMAGENET, Normalisation
from pretrain.parallel import Place, Placed
from pretrain.start import resume, start_from
from pretrain.targets import Centres, initial_centres
from pretrain.teacher import Teacher, load_teacher
from pretrain.train_step import State, StepPlan

_MODEL_SEED = 2  # apart from those of the data and of the steps; each student's is the same


def distill(config: DistillConfig, *, quiet: bool = False) -> dict[str, Path]:
    """Distil, or go on with a distillation, up to the last iteration.

    Args:
        config: with `run_dir`, and `data.path` or `data.mix`, set.
        quiet: show nothing.

    Returns:
        The folder of each student's last checkpoint, by name.

    Raises:
        ConfigError: when the config cannot be trained, or is not that of the distillation in `run_dir`.
        ModelError: when the teacher cannot be loaded.
        StoppedError: on SIGTERM, after a checkpoint of every student.
        ExecutorError: when too many steps in a row of a student have no finite loss.
        IntegrityError: when the dataset, the teacher or every checkpoint is damaged.
    """
    assert config.run_dir is not None
    run_dir = Path(config.run_dir)
    folders = [student_dir(run_dir, name) for name in config.students]
    with at_hand(config, run_dir, quiet=quiet) as hand:
        where, say = hand.where, hand.progress.say
        teacher = load_teacher(config.teacher, where, warn=say)
        for text in told_of(teacher, config):
            say(text)
        identity = identity_with(teacher, config, dataset=hand.images.digest)
        require_same_students(run_dir, identity)
        step = newest_checkpoint(folders, where, warn=say)
        state = build(config, teacher, where, is_new=step is None)
        for text in [] if step is None else resume(state, step, identity, where):
            say(text)
        start = None if teacher.link["step"] is None else teacher.link["path"]
        normalisation = hand.normalisation(config, run_dir, start=start)
        names = {folder: f"{config.name}-{folder.name}" for folder in folders}
        session = Session(
            total=config.schedule.total,
            plan=plan_of(config, teacher, normalisation),
            source=source_of(config, hand.images, teacher),
            where=where,
            checkpoint=config.checkpoint,
            max_skipped=config.max_skipped,
            identity=identity,
            progress=hand.progress,
            logs=hand.open_logs(config, names, first_step=state.step),
            # Of a rectangular crop the shorter side, which the patches of all divide.
            probe=probe_of(config, normalisation, side_px=min(sides_of(config.crops.global_size_px))),
            stop=hand.stop,
        )
        if state.step == 0:
            look_at_teacher(session, state)
        return dict(zip(config.students, run_loop(session, state), strict=True))


def build(config: DistillConfig, teacher: Teacher, where: Place, *, is_new: bool = True) -> State:
    """The students, each with its optimiser and its mean, and the teacher, at iteration 0.

    Args:
        config: of the distillation.
        teacher: what is distilled from; it is placed.
        where: this rank's place.
        is_new: whether students begin with their `model.weights`, or with a checkpoint to come.

    Raises:
        ConfigError: a patch of the teacher does not fit the crops, or a student's mask the teacher's grid.
    """
    grid = grid_of_teacher(config, teacher)
    channels = teacher.network.backbone.config.channels
    for name, student in config.students.items():
        own = config.grid_of(student.model.patch_px)
        if student.model.channels != channels:
            raise ConfigError(
                "The teacher looks at other channels than its students",
                got=f"{channels}, and {student.model.channels} of {name}",
                expected="as many",
            )
        if config.mask_students and own != grid:
            raise ConfigError(
                f"Student {name} cannot be masked at the patches of the teacher",
                got=f"{own[0]} × {own[1]} patches, and {grid[0]} × {grid[1]}",
                expected="the same grid",
                remedy="Leave mask_students out, or take the teacher's patch_px",
            )
    learners = [_learner(config, name, teacher, where, is_new=is_new) for name in config.students]
    centres = initial_centres(teacher.network, device=where.device)
    if teacher.centres is not None and config.objective.centring == "softmax":
        centres = Centres(*(centre.to(where.device) for centre in teacher.centres))
    placed = Placed(teacher.network, where, config.parallel)
    return State(learners, placed, centres, parent=teacher.link)


def _learner(config: DistillConfig, name: str, teacher: Teacher, where: Place, *, is_new: bool) -> Learner:
    model = config.students[name].model
    grid = config.position_grid(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(config.seed, _MODEL_SEED))
        student = _network(teacher, model.shape(grid=grid, drop_path=model.drop_path))
    if model.weights and is_new:
        student.backbone.load_state_dict(
            start_from(model.weights, student.backbone.config, inflate=model.inflate)
        )
    return new_learner(
        student,
        _network(teacher, model.shape(grid=grid, drop_path=0.0)),
        where,
        folder=student_dir(Path(config.run_dir or "."), name),
        schedule=config.schedule_of(name),
        optimizer=config.optimizer_of(name),
        parallel=config.parallel,
    )


def _network(teacher: Teacher, shape: Any) -> Network:
    """A student with fresh heads of the teacher's shapes, or with one to the teacher's width."""
    given = teacher.network
    if given.dino_head is None:
        return Network(shape, None, None, feature_dim=given.backbone.config.dim)
    own = given.ibot_head.config if given.ibot_head else None
    return Network(shape, *(_of_width(head, shape.dim) for head in (given.dino_head.config, own)))


def _of_width(head: HeadConfig | None, dim: int) -> HeadConfig | None:
    if head is None:
        return None
    return HeadConfig(dim, head.prototypes, head.hidden_dim, head.bottleneck_dim)


def grid_of_teacher(config: DistillConfig, teacher: Teacher) -> tuple[int, int]:
    """Rows and columns of the teacher's patches of a global crop.

    Raises:
        ConfigError: when its patch does not divide the crop.
    """
    given = teacher.network.backbone.config
    if any(side % given.patch_px for side in sides_of(config.crops.global_size_px)):
        raise ConfigError(
            "The teacher cannot cut the global crops into its patches",
            got=f"crops.global_size_px {config.crops.global_size_px}, patches of {given.patch_px} px",
            expected=f"a multiple of {given.patch_px} that the students' patches divide too",
        )
    return config.grid_of(given.patch_px)


def plan_of(config: DistillConfig, teacher: Teacher, normalisation: Normalisation = IMAGENET) -> StepPlan:
    """What every iteration of a distillation does alike."""
    return StepPlan(
        config.seed,
        config.batch_images,
        config.objective,
        config.schedule,
        accumulate=config.accumulate,
        masks_student=config.mask_students,
        normalisation=normalisation,
        grid=grid_of_teacher(config, teacher),
        features=None if teacher.has_heads else config.features,
    )


def source_of(config: DistillConfig, images: ImageSet, teacher: Teacher) -> Source:
    """Where the batches of a distillation come from; features are learned of the global crops alone."""
    crops = config.crops if teacher.has_heads else config.crops.model_copy(update={"num_local": 0})
    return Source(
        images,
        config.data,
        crops,
        config.masking,
        grid=grid_of_teacher(config, teacher),
        seed=config.seed,
        batch_images=config.batch_images,
        accumulate=config.accumulate,
    )


def identity_with(teacher: Teacher, config: DistillConfig, *, dataset: str) -> dict[str, object]:
    """What decides which numbers come out: of the teacher its bytes and its heads, wherever it lies."""
    found = identity_of(config, dataset=dataset, window_images=config.data.window_images)
    return {**found, "teacher": {"sha256": teacher.link["sha256"], "has_heads": teacher.has_heads}}


def require_same_students(run_dir: Path, identity: dict[str, object]) -> None:
    """Refuse to begin anew beside students of another distillation, for none of which there is a new one.

    Raises:
        ConfigError: naming what differs: the teacher, a student that came or went, any other setting.
    """
    for folder in student_dirs(run_dir):
        for step in complete_steps(folder)[-1:]:
            checkpoint = step_dir(folder, step)
            try:
                saved = read_facts(checkpoint)["identity"]
            except (OSError, ValueError, LookupError, TypeError):
                continue  # damaged: those that are sound are looked for, and compared, when it goes on
            require_same(json.loads(json.dumps(saved)), identity, checkpoint, step=step)


def told_of(teacher: Teacher, config: DistillConfig) -> Sequence[str]:
    """What people should know before it begins: the loss and why, and what they may not expect."""
    told = [teacher.story()]
    if not teacher.has_heads and config.crops.num_local:
        told.append("features are learned of global crops alone: no local crops are made")
    size = num_parameters(teacher.network.backbone)
    for name, student in config.students.items():
        model = student.model
        with torch.device("meta"):
            shape = model.shape(grid=config.position_grid(name), drop_path=0.0)
            own = num_parameters(Network(shape, None, None).backbone)
        if own >= size:
            told.append(
                f"the teacher ({size:,} parameters) is no larger than student {name} ({own:,}): it may hold "
                "the student back"
            )
    return told


def num_parameters(module: torch.nn.Module) -> int:
    """How many numbers are learned."""
    return sum(parameter.numel() for parameter in module.parameters())


def look_at_teacher(session: Session, state: State) -> None:
    """Measure the teacher, where the config asks for it: every student's metrics have it, for comparison."""
    if session.probe is None:
        return
    measures = session.probe.measure(state.teacher.working.backbone, session.where)
    for log in session.logs:
        log.write({"step": state.step, **{f"teacher_{name}": value for name, value in measures.items()}})
    shown = "  ".join(f"{name} {value:.3f}" for name, value in measures.items())
    session.progress.say(f"the teacher: {shown}")
