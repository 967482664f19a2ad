"""Checkpoints: whole or absent, independent of the number of ranks, and readable by anybody.

    RUN_DIR/checkpoints/step-00001000/
      teacher.safetensors     the result; fp32, official keys: backbone.…, dino_head.…, ibot_head.…
      student.safetensors
      training.safetensors    AdamW's moments by parameter, and the centres
      gram.safetensors        the Gram teacher's backbone, while there is one
      training.json           the step, the config, what made it
      COMPLETE.json           written last: bytes and SHA-256 of the others

A step is written under another name, renamed when whole, and counts once its COMPLETE.json is there and every
hash in it is right. One that is damaged is passed over for the one before.
"""

import json
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from curation.disk_errors import naming
from curation.errors import IntegrityError
from curation.local_files import fsync
from pretrain.checkpoint_files import (
    FACTS,
    GRAM,
    MARKER,
    TEACHER,
    complete_steps,
    fault_of,
    folders,
    proof_of,
    read_facts,
    step_dir,
)
from pretrain.model.network import BackboneConfig, Network
from pretrain.normalisation import IMAGENET, Normalisation, metadata_of_normalisation
from pretrain.parallel import assign, full
from pretrain.targets import Centres
from pretrain.tensor_files import save_file
from pretrain.weights import config_of_metadata, shape_key

Fit = Callable[[str, Tensor], Tensor]


class CheckpointConfig(BaseModel):
    """When checkpoints are written, and which of them stay."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every: int = Field(1_000, ge=1, description="iterations between two; one more is written at the end")
    keep: int = Field(2, ge=1, description="newest ones that stay")
    keep_every: int | None = Field(
        None, ge=1, description="one whose iteration this divides stays as well; null: none"
    )


def save(
    run_dir: Path,
    step: int,
    *,
    student: Network,
    teacher: Network,
    optimizer: Optimizer,
    centres: Centres,
    facts: Mapping[str, Any],
    is_writer: bool,
    gram: Network | None = None,
    normalisation: Normalisation = IMAGENET,
) -> Path:
    """Write the checkpoint after `step` iterations. Every rank must call; one of them writes.

    Args:
        run_dir: of the training.
        step: iterations done.
        student, teacher, optimizer, centres: the state.
        facts: what else `training.json` says.
        is_writer: whether this rank writes.
        gram: the Gram teacher, where there is one.
        normalisation: of the input that the networks take, for whoever uses them.

    Returns:
        The folder.

    Raises:
        ExecutorError: when the file system refuses; the checkpoints before stay.
    """
    files = {
        TEACHER: _state_of(teacher, is_writer),
        "student.safetensors": _state_of(student, is_writer),
        "training.safetensors": _training_state(student, optimizer, centres, is_writer),
    }
    if gram is not None:
        files[GRAM] = _state_of(gram, is_writer)
    target = step_dir(run_dir, step)
    if not is_writer:
        return target
    shape = student.backbone.config
    metadata = {"format": "pt", "lvd": "1", shape_key(shape): json.dumps(asdict(shape))}
    metadata |= metadata_of_normalisation(normalisation)
    _write(target, files, metadata, facts={"step": step, **facts})
    return target


def _write(
    target: Path,
    files: Mapping[str, dict[str, Tensor]],
    metadata: dict[str, str],
    *,
    facts: Mapping[str, Any],
) -> None:
    """Write a whole checkpoint beside its place, move it there, and prove it."""
    temp = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    num_bytes = sum(tensor.nbytes for tensors in files.values() for tensor in tensors.values())
    try:
        with naming(target, num_bytes=num_bytes):
            temp.mkdir(parents=True)
            for name, tensors in files.items():
                save_file(tensors, temp / name, metadata=metadata)
            (temp / FACTS).write_text(json.dumps(facts, indent=1))
            proof = {path.name: proof_of(path) for path in sorted(temp.iterdir())}
            _sync(temp)
            _remove(target)  # a damaged one of this step, or one without its marker
            temp.rename(target)
            _publish_marker(target, proof)
    finally:
        shutil.rmtree(temp, ignore_errors=True)  # on a full disk, half a checkpoint would keep it full


def prune(run_dir: Path, config: CheckpointConfig, *, newest: int) -> None:
    """Remove the checkpoints that need not stay, and what interrupted writes left.

    Args:
        run_dir: of the training.
        config: which ones stay.
        newest: the step just written. Later ones are damaged: the training goes on from one before them, and
            they must not stay in the place of sound ones.
    """
    folder = run_dir / "checkpoints"
    steps = complete_steps(run_dir)
    past = [step for step in steps if step <= newest]
    kept = {step for step in past if config.keep_every is not None and step % config.keep_every == 0}
    for step in set(steps) - kept - set(past[-config.keep :]):
        _remove(step_dir(run_dir, step))
    for path in folder.glob(".step-*.tmp"):
        _remove(path)


def _remove(path: Path) -> None:
    """Remove what lies there: of a link the link, and never what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def newest_sound(run_dir: Path, *, warn: Callable[[str], None]) -> Path | None:
    """The newest checkpoint whose every byte is what was written; None where there is none at all.

    Raises:
        IntegrityError: when there are checkpoints, and every one is damaged.
    """
    faults: list[str] = []
    for folder in reversed(folders(run_dir)):
        fault = fault_of(folder)
        if fault is None:
            return folder
        warn(f"{folder} is damaged ({fault})")
        if (folder / MARKER).exists():
            faults.append(f"{folder.name}: {fault}")
    if faults:
        raise IntegrityError(
            f"Every checkpoint in {run_dir / 'checkpoints'} is damaged",
            got="; ".join(faults),
            remedy="Restore one, or remove the folder to begin anew",
        )
    return None


def newest_common(run_dirs: Sequence[Path], *, warn: Callable[[str], None]) -> int | None:
    """The newest step of which every one of these trainings, one in pretraining, has a sound checkpoint.

    Raises:
        IntegrityError: when there are checkpoints, and none that is sound in all.
    """
    if len(run_dirs) == 1:
        found = newest_sound(run_dirs[0], warn=warn)
        return None if found is None else int(read_facts(found)["step"])
    steps_of = [set(complete_steps(run_dir)) for run_dir in run_dirs]
    steps = set.intersection(*steps_of)
    for step in sorted(steps, reverse=True):
        faults = {folder: fault_of(folder) for folder in (step_dir(run_dir, step) for run_dir in run_dirs)}
        damaged = {folder: fault for folder, fault in faults.items() if fault is not None}
        if not damaged:
            return step
        for folder, fault in damaged.items():
            warn(f"{folder} is damaged ({fault})")
    # One killed as it wrote the first checkpoint of all has that of some students, and begins anew.
    if steps or any(len(found) > 1 for found in steps_of):
        raise IntegrityError(
            "There is no step of which every student has a sound checkpoint",
            got="; ".join(
                f"{run_dir}: steps {sorted(found)}" for run_dir, found in zip(run_dirs, steps_of, strict=True)
            ),
            remedy="Restore one of each, or remove the folders to begin anew",
        )
    return None


def load(
    folder: Path,
    *,
    student: Network,
    teacher: Network,
    optimizer: Optimizer | None,
    fit: Fit = lambda _name, tensor: tensor,
) -> Centres:
    """Set the state from a checkpoint, whatever the number of ranks now and then; returns the centres.

    Args:
        folder: the checkpoint.
        student, teacher: what they shall be is set.
        optimizer: likewise; None leaves it as it is.
        fit: makes of a tensor, by name, what this model wants in its place.

    Raises:
        IntegrityError: when the checkpoint is not of this student.
    """
    load_network(student, folder / "student.safetensors", fit)
    load_network(teacher, folder / TEACHER, fit)
    device = next(student.parameters()).device
    with safe_open(folder / "training.safetensors", "pt") as file:
        if optimizer is not None:
            _load_moments(optimizer, student, file, fit)
        return Centres(*(file.get_tensor(f"centre.{field}").to(device) for field in Centres._fields))


def _load_moments(optimizer: Optimizer, student: Network, file: Any, fit: Fit) -> None:
    moved = set(file.keys())
    for name, parameter in student.named_parameters():
        if f"step.{name}" not in moved:  # no step was taken so far
            continue
        state = optimizer.state[parameter]
        for kind in ("exp_avg", "exp_avg_sq"):
            state[kind] = parameter.detach().clone()
            assign(state[kind], fit(f"{kind}.{name}", file.get_tensor(f"{kind}.{name}")))
        state["step"] = file.get_tensor(f"step.{name}").to(parameter.device)


def shape_of(folder: Path) -> BackboneConfig:
    """The shape of the backbone in a checkpoint."""
    with safe_open(folder / TEACHER, "pt") as file:
        return config_of_metadata(file.metadata() or {})


def _state_of(network: nn.Module, is_writer: bool) -> dict[str, Tensor]:
    """All tensors, whole, on the CPU of the one rank that writes; the others only help to gather them."""
    state = {}
    for name, tensor in _tensors_of(network).items():
        whole = full(tensor)
        if is_writer:
            state[name] = whole.clone()
    return state


def _tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """The parameters, and the statistics of batch norms, which every rank has whole and alike."""
    return dict(network.named_parameters()) | dict(network.named_buffers())


def _training_state(
    student: Network, optimizer: Optimizer, centres: Centres, is_writer: bool
) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name, parameter in student.named_parameters():
        for kind, tensor in optimizer.state[parameter].items():
            whole = full(tensor)
            if is_writer:
                state[f"{kind}.{name}"] = whole.clone()
    return (
        {**state, "centre.cls": centres.cls.cpu(), "centre.patches": centres.patches.cpu()}
        if is_writer
        else {}
    )


def load_network(network: Network, path: Path, fit: Fit) -> None:
    """Set a network from one of the files of a checkpoint; every rank must call.

    Raises:
        IntegrityError: when the file is not of this network.
    """
    targets = _tensors_of(network)
    with safe_open(path, "pt") as file:
        tensors = {name: fit(name, file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        names = set(tensors)
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        expected = {name: tuple(target.shape) for name, target in targets.items()}
        if shapes != expected:
            wrong = sorted(name for name in names | set(expected) if shapes.get(name) != expected.get(name))
            raise IntegrityError(
                f"{path} is not a checkpoint of this model",
                got=f"{len(wrong)} tensors that are missing, new or of another shape: {', '.join(wrong[:5])}",
                remedy="Resume with the config that wrote it, or choose another run_dir",
            )
        for name, target in targets.items():
            assign(target, tensors[name])


def _publish_marker(target: Path, proof: Mapping[str, object]) -> None:
    temp = target / f".{MARKER}.tmp"
    temp.write_text(json.dumps(proof, indent=1))
    fsync(temp)
    temp.rename(target / MARKER)
    fsync(target)
    fsync(target.parent)


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        fsync(path)
    fsync(folder)
